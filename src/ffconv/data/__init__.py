"""Data: images and videos in folders and shards, embedded sets; the same batches for any number of workers.

``config.open_samples`` opens what a configuration names; ``loading`` makes batches of it; ``verify`` reads
every file beforehand. Sources: ``images`` (folders), ``shards`` (local tar files, by index), ``streaming``
(pipes and URLs), ``embedded`` (no files). ``transforms`` holds the image transforms, ``shard_writing`` makes
shards.

Videos: ``video_config.open_videos`` opens them, ``video_reading`` decodes the frames that are needed,
``clips`` and ``views`` make the clips of training and testing of them; ``moving_digits`` is the embedded set.

Keypoints: ``pose_config.open_persons`` opens persons (``pose_samples``), those of COCO-format files
(``coco_keypoints``) or drawn ones (``figures``); ``pose_transforms`` makes their crops, ``heatmaps`` turns
keypoints into targets and a network's answer into keypoints.
"""
