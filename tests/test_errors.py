from amuse_jax.errors import first_few, first_line


def test_five_names_are_listed_and_the_others_counted():
    assert first_few(['a'], ', ') == 'a'
    assert first_few(list('abcde'), '; ') == 'a; b; c; d; e'
    assert first_few([str(i) for i in range(1234)], ', ') == '0, 1, 2, 3, 4, and 1,229 more'


def test_the_first_line_of_an_error_or_its_class():
    assert first_line(ValueError('\n one\ntwo')) == 'one'
    assert first_line(EOFError()) == 'EOFError'
