"""The retention proof: teachers and students of several tasks as ordinary runs, and the report on them."""
