"""Marks on the fields of settings classes. Standard library only, so any settings file may use them."""


class FreeToChange:
    """Mark of a field whose value cannot change what is learned, beyond rounding. A run may be continued with another value."""


FREE = FreeToChange()
"""The mark, as in `micro_batch: Annotated[int, FREE]`. On a field that holds settings it marks all of them."""
