import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from amuse_jax.models import roi_highway
from amuse_jax.models.roi_highway import RoiHighway

IS_INSTRUMENT = (True, True, True, False)  # three instruments and the player
VIOLIN, FLUTE, DRUM, PLAYER = range(4)
NONE = -1
SEGMENTS, WIDTH, FEATURES = 2, 8, 5


def stage(*regions):
    """(class, x0, y0, x1, y1) of one segment -> boxes, classes, scores, each [1, 1, K, ...]."""
    boxes = np.array([region[1:] for region in regions], np.float32)[None, None]
    classes = np.array([region[0] for region in regions])[None, None]
    return boxes, classes, np.where(classes >= 0, 0.9, 0).astype(np.float32)


def describe(*regions):
    found = roi_highway.describe_regions(*stage(*regions), jnp.asarray(IS_INSTRUMENT))
    return jax.tree.map(lambda x: np.asarray(x[0, 0]), found)


TRIO = (
    (FLUTE, 0.7, 0.5, 0.8, 0.6),
    (VIOLIN, 0.1, 0.5, 0.2, 0.6),
    (PLAYER, 0.05, 0.2, 0.25, 1.0),
    (DRUM, 0.4, 0.5, 0.5, 0.6),
    (NONE, 0.0, 0.0, 0.0, 0.0),
    (PLAYER, 0.65, 0.2, 0.85, 1.0),
)


def test_places_are_the_ends_and_the_middle_of_the_row_of_instruments():
    places = describe(*TRIO).places
    expected = [[0, 0, 1], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(places, expected)


def test_neighbours_are_the_nearest_of_the_same_kind():
    found = describe(*TRIO)
    names = np.eye(4)
    np.testing.assert_array_equal(found.left[0], names[DRUM])
    np.testing.assert_array_equal(found.left[3], names[VIOLIN])
    np.testing.assert_array_equal(found.right[3], names[FLUTE])
    np.testing.assert_array_equal(found.right[2], names[PLAYER])
    assert not found.left[1].any() and not found.right[0].any()


def test_partner_is_the_overlapping_player():
    partner = describe(*TRIO).geometry[:, 10:16]
    # The violin's player: centre 0.05 lower, that is half of the violin's height; twice as wide.
    violin = [0.0, 0.5, np.log(2), np.log(8), 0.01 / 0.16, 1]
    np.testing.assert_allclose(partner[1], violin, atol=1e-4)
    np.testing.assert_allclose(partner[2][1], -0.5 / 8, atol=1e-4)  # in the player's heights
    assert partner[3][5] == 1  # the drum has the nearest player as its partner


def test_no_region_is_all_zeros():
    found = describe(*TRIO)
    for values in (found.geometry, found.left, found.right, found.places):
        assert not values[4].any()


def make_highway():
    return RoiHighway(IS_INSTRUMENT, SEGMENTS, FEATURES, WIDTH, rngs=nnx.Rngs(0))


@jax.jit
def embed(highway, *inputs):
    rng = np.random.default_rng(1)
    names = rng.normal(size=(4 + 3, WIDTH)).astype(np.float32)
    return highway(*inputs, names[:4], names[4:])


def draw_inputs(seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.7, (2, SEGMENTS, 4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, corner.shape)], -1)
    classes = rng.integers(-1, 4, (2, SEGMENTS, 4))
    scores = rng.uniform(0.3, 1, classes.shape)
    features = rng.normal(size=(*classes.shape, FEATURES))
    mask = np.array([[True, True], [True, False]])
    boxes, scores, features = (x.astype(np.float32) for x in (boxes, scores, features))
    return [boxes, classes, scores, features, mask]


def test_order_of_the_regions_does_not_matter():
    highway, inputs = make_highway(), draw_inputs()
    found = embed(highway, *inputs)
    order = np.array([2, 0, 3, 1])
    shuffled = embed(highway, *(x[:, :, order] for x in inputs[:4]), inputs[4])
    np.testing.assert_allclose(shuffled.objects, found.objects, atol=1e-5)
    np.testing.assert_allclose(shuffled.moments, found.moments[:, :, order], atol=1e-5)


def test_padding_has_no_influence():
    highway, inputs = make_highway(), draw_inputs()
    found = embed(highway, *inputs)
    boxes, classes, scores, features, mask = (np.array(x) for x in inputs)
    empty = classes < 0
    boxes[empty], scores[empty], features[empty] = 0.7, 0.5, 3.0
    boxes[1, 1], classes[1, 1], features[1, 1] = 0.3, VIOLIN, 2.0  # a segment that does not exist
    changed = embed(highway, boxes, classes, scores, features, mask)
    np.testing.assert_allclose(changed.objects, found.objects, atol=1e-5)
    valid = ((inputs[1] >= 0) & mask[..., None])[..., None]
    np.testing.assert_allclose(
        np.where(valid, changed.moments, 0), np.where(valid, found.moments, 0), atol=1e-5
    )


def test_one_and_three_of_a_kind_differ():
    """A mean over the regions could not distinguish them; the sums can."""
    highway = make_highway()
    boxes, classes, scores, features, mask = (x[:1] for x in draw_inputs())
    boxes[:], features[:] = boxes[:, :1, :1], features[:, :1, :1]
    few, many = np.full_like(classes, NONE), np.full_like(classes, NONE)
    few[:, :, :1], many[:, :, :3] = VIOLIN, VIOLIN
    one, three = (
        embed(highway, boxes, classes, scores, features, mask).objects[0, VIOLIN]
        for classes in (few, many)
    )
    assert np.abs(one - three).max() > 0.1
