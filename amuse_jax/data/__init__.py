"""From videos and questions to batches.

`stage` is the stage `prepare`: `video_arrays` reads one video, `records` stores its arrays, and
`prepared` reads the tables and records that the stage left. `tokenizer` and `question_table` turn
questions into token ids, `augment` changes videos without making their answers wrong, and
`pipeline` makes shuffled batches.
"""
