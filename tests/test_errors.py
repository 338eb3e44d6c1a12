from amuse_jax.errors import first_few


def test_five_names_are_listed_and_the_others_counted():
    assert first_few(['a'], ', ') == 'a'
    assert first_few(list('abcde'), '; ') == 'a; b; c; d; e'
    assert first_few([str(i) for i in range(1234)], ', ') == '0, 1, 2, 3, 4, and 1,229 more'
