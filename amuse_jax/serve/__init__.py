"""A page in the browser that answers questions about a video: `amuse serve runs/demo`.

`server` starts and ends it, `page` lays it out, `handlers` does the work of its buttons, `sessions`
keeps the videos of its visitors, `forms` has the data set's forms of questions, `examples` finds
rendered performances, and `fragments` writes what is shown of an answer.
"""
