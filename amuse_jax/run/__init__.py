"""The run as a whole: which stages there are, and what is checked before the first one starts.

`plan` lists the stages, `definition` says what a stage is and `stage` runs one of them. `results`
finds what a workdir holds, by comparing what each result was made from (`made_from`; `format_1` for
results of the first version); `set_aside` keeps what other settings made, and `status` lists it.
`settings`, `preflight` and `disk` refuse a run that could not finish, `hours` estimates how long it
takes, and `needs` explains which data a user must provide. `batches` keeps the batch sizes of a run
that moves to other devices, `parts` shares the work of a stage among jobs, and `lock` keeps another
run out of the workdir.
"""
