"""Data sets of other libraries as an ``ImageSet``, one module for each library.

None of the libraries is imported: what they hold is read by its attributes.
"""
