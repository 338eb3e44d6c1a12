from tests.media import writing

media = writing.media  # the fixture
