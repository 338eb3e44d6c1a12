"""Summaries of stages, as their manifests have them."""

SUMMARIES = {
    'annotate': {
        'records': 165,
        'stems': 'truth',
        'segments_with_rhythm_change': 1498,
        'performances': 165,
        'rhythm': {
            'found': 1498, 'true': 293, 'both': 241, 'precision': 0.4839, 'recall': 0.8225,
        },
        'sources': {
            'found': 2059, 'true': 2061, 'both': 2059, 'precision': 1.0, 'recall': 0.999,
        },
    },
    'rois': {
        'trained_on': 366,
        'map50': 0.591,
        'map50_of_class': {'acoustic_guitar': 0.50776, 'bassoon': 0.0, 'player': 0.995},
        'records': 165,
        'segments': 1650,
        'regions': 4500,
        'regions_of_class': {'acoustic_guitar': 47, 'bagpipe': 192, 'player': 3898},
        'unreadable': {},
    },
    'pretrain': {
        'steps': 8,
        'parameters': 6000047,
        'train': {
            'videos': 80, 'rhythm_mse': 0.0903, 'sources_mse': 0.4116,
            'sources_average_precision': 0.9275,
        },
        'val': {
            'videos': 9, 'rhythm_mse': 0.1784, 'sources_mse': 0.83,
            'sources_average_precision': None,
        },
    },
}  # fmt: skip
