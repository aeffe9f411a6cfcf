"""Pictures of networks and of their training. Each function returns a matplotlib Figure: ``figure.savefig("out.png")``.

>>> from cnnlib import models, viz
>>> figure = viz.filters(models.LeNet5().c1.weight)         # doctest: +SKIP
"""

from cnnlib.viz.boundary import decision_boundary
from cnnlib.viz.confusion import confusion_matrix
from cnnlib.viz.curve import learning_curve
from cnnlib.viz.filters import filters
from cnnlib.viz.maps import feature_maps

__all__ = ["confusion_matrix", "decision_boundary", "feature_maps", "filters", "learning_curve"]
