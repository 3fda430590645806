"""Batches: files of requests, whose lines go through the application one by one.

`runner.BatchRunner` finds the batches that are to be worked on, whichever server began them, and
works on each in a `batch_run.BatchRun`. What a line is answered is on disk before it is counted.
"""
