"""The scatter plot of relations: a dot per statement, the first two principal components, a panel per stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vsre.features.inside import Inside


def write_scatter(path: Path, found: Inside) -> Path:
    """Write an SVG (or what the file's suffix says) of `found.vectors`; the axes are each panel's own components."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

    names = list(dict.fromkeys(found.relations))
    columns = min(3, len(found.vectors))
    lines = -(-len(found.vectors) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.6 * lines + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (stage, vectors) in enumerate(found.vectors.items(), start=1):
        axes = figure.add_subplot(lines, columns, place)
        pca = PCA(2)
        points = pca.fit_transform(vectors)
        for colour, name in enumerate(names):
            mine = np.array([relation == name for relation in found.relations])
            axes.scatter(points[mine, 0], points[mine, 1], s=9, alpha=0.6, color=f"C{colour}", label=name, linewidths=0)
        ratio = found.figures["relations"][stage]["ratio"]
        axes.set_title(f"{stage}: within / between {ratio:.2f}", fontsize=9)
        axes.set_xlabel(f"{pca.explained_variance_ratio_.sum():.0%} of the variance", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(7, len(labels)), fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path
