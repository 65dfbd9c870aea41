"""Data: images in folders and shards, embedded sets, and the same batches for any number of workers.

``config.open_samples`` opens what a configuration names; ``loading`` makes batches of it; ``verify`` reads
every file beforehand. Sources: ``images`` (folders), ``shards`` (local tar files, by index), ``streaming``
(pipes and URLs), ``embedded`` (no files). ``transforms`` holds the image transforms, ``shard_writing`` makes
shards.
"""
