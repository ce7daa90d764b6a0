"""Defects put into copies of the library, some of them shipped by others: tests must notice."""
