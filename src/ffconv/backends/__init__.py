"""Implementations of the operators for particular devices and libraries."""
