"""The run as a whole: which stages there are, and what is checked before the first one starts.

`plan` lists the stages and `stage` runs one of them. `settings`, `preflight` and `disk` refuse a
run that could not finish, `needs` explains which data a user must provide, and `lock` keeps a
second run out of the workdir.
"""
