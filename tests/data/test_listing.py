from amuse_jax.data.listing import some


def test_five_are_named_and_the_others_counted():
    assert some(['a'], ', ') == 'a'
    assert some(list('abcde'), '; ') == 'a; b; c; d; e'
    assert some([str(i) for i in range(1234)], ', ') == '0, 1, 2, 3, 4, and 1,229 more'
