"""The run as a whole: which stages there are, and what is checked before the first one starts.

`plan` lists the stages, `definition` says what a stage is and `stage` runs one of them. `results`
finds what a workdir holds, by comparing what each result was made from (`made_from`); `set_aside`
keeps what other settings made, and `status` lists it. `settings`, `preflight` and `disk` refuse a
run that could not finish, `needs` explains which data a user must provide, and `lock` keeps a
second run out of the workdir.
"""
