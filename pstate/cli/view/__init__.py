"""`pstate view`: a live tree of a state. What is shown is decided without textual, in all modules but the last three.

`following` hears of commits and edits in a thread, `model` keeps what is known of them (`spots`, `filtering`,
`timeline`), `looks` makes one safe line of any value, and `editing` commits one. `painting`, `widgets` and `app` put
that on the terminal.
"""
