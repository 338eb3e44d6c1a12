"""Evaluation: answers to the test questions, accuracy tables and figures.

stage.py is the evaluate stage; it answers the questions and computes the scores (tables.py,
bootstrap.py, baselines.py), and report.py writes the report (figures.py, example_page.py, page/).
other_data.py prepares another data set's questions; test_sets.py and published.py know the paper's
test sets and rows; ablations.py and seeds.py compare several runs.
"""
