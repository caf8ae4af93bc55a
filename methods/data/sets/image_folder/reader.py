"""Any folder of images."""

from methods.data.folder import ImageFolder
from methods.data.sets.image_folder.spec import ImageFolderData


def read(config: ImageFolderData, split: str) -> ImageFolder:
    how = {"labels": config.labels, "splits": config.splits, "max_pixels": config.max_pixels}
    return ImageFolder(config.path, split, **how)
