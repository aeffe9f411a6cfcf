"""Pictures of networks and of their training.

Each returns a matplotlib Figure, ``figure.savefig("out.png")``, or SVG text. Pictures that compute something have the numbers
as a function of their own: ``saliency_map`` for ``saliency``, and so on. docs/gallery.md shows them all, docs/xray.md those
of recurrent networks.

>>> from cnnlib import models, viz
>>> figure = viz.filters(models.LeNet5().c1.weight)         # doctest: +SKIP
"""

from cnnlib.viz.architecture import architecture
from cnnlib.viz.boundary import decision_boundary
from cnnlib.viz.cell_text import cell_text
from cnnlib.viz.comparison import comparison
from cnnlib.viz.confusion import confusion_matrix
from cnnlib.viz.convolution_demo import convolution_demo
from cnnlib.viz.curve import learning_curve
from cnnlib.viz.deconvnet import deconvnet, projection
from cnnlib.viz.filters import filters
from cnnlib.viz.flow import gradient_flow, gradient_norms
from cnnlib.viz.gates import gates, saturation, saturation_shares
from cnnlib.viz.influence import influence, influence_map
from cnnlib.viz.maps import feature_maps
from cnnlib.viz.occlusion import occlusion, occlusion_map
from cnnlib.viz.percentiles import percentiles
from cnnlib.viz.saliency import saliency, saliency_map
from cnnlib.viz.samples import interpolation, latent_grid, mosaic, sample_grid
from cnnlib.viz.sensitivity import hand_gated, sensitivity, sensitivity_map, unrolled
from cnnlib.viz.sequence_xray import sequence_xray
from cnnlib.viz.thinned import kept_units, thinned_network

__all__ = [
    "architecture",
    "cell_text",
    "comparison",
    "confusion_matrix",
    "convolution_demo",
    "decision_boundary",
    "deconvnet",
    "feature_maps",
    "filters",
    "gates",
    "gradient_flow",
    "gradient_norms",
    "hand_gated",
    "influence",
    "influence_map",
    "interpolation",
    "kept_units",
    "latent_grid",
    "learning_curve",
    "mosaic",
    "occlusion",
    "occlusion_map",
    "percentiles",
    "projection",
    "saliency",
    "saliency_map",
    "sample_grid",
    "saturation",
    "saturation_shares",
    "sensitivity",
    "sensitivity_map",
    "sequence_xray",
    "thinned_network",
    "unrolled",
]
