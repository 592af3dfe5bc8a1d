"""Papers run again: one module for each figure or table, and one for each paper that lists them.

An item is a function from a :class:`~naswot.reproduce.setting.Setting` to an
:class:`~naswot.reproduce.rows.Outcome`: the rows of its table, the pictures it drew, and what the data at hand do not
allow.
"""
