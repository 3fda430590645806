"""Arguments in a family's own language, turned into JSON text as they stream.

Each dialect has one entry, a reading function that writes JSON through a callback. It raises
NotACall; where it does so before its first write, the text was no call at all.
"""
