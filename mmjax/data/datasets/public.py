"""Any TFDS data set by name."""

from __future__ import annotations

import dataclasses
import pathlib

from mmjax.components import suggestion
from mmjax.data.source import Source
from mmjax.errors import DataError


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A data set of the TFDS catalogue, or of any builder that is registered or already prepared.

    Many builders of the catalogue need TensorFlow to prepare. Prepare those where it is installed,
    `tfds build NAME --file_format=array_record --data_dir=DATA_DIR/tfds`; reading does not need it.

    `mmjax.data.tfds_source.TfdsSource` says what each kind of feature is read as.

    Attributes:
      name: in TFDS's syntax, such as 'mnist', 'cifar10:3.*.*' or 'glue/cola:2.0.0'.
      split: in TFDS's syntax, such as 'train', 'train[:10%]' or 'train+validation'.
    """

    name: str
    split: str = "train"

    def prepare(self, data_dir: pathlib.Path) -> None:
        """Downloads and generates it; nothing when that is done.

        Raises:
          DataError: when that fails, with the cause.
        """
        from mmjax.data import tfds_source

        tfds_source.prepare(self._builder, data_dir)

    def open(self, data_dir: pathlib.Path) -> Source:
        """The records of the split.

        Raises:
          DataError: when they are not prepared or damaged, or there is no such split.
        """
        from mmjax.data import tfds_source

        place = tfds_source.root(data_dir)
        with tfds_source.one_line_errors(self.name, place):
            directory = pathlib.Path(self._builder(str(place)).data_dir)
        return tfds_source.TfdsSource(directory, self.split)

    def _builder(self, place):
        import tensorflow_datasets as tfds

        try:
            return tfds.builder(self.name, data_dir=place)
        except tfds.core.DatasetNotFoundError:
            near = suggestion(self.name, tfds.list_builders(with_community_datasets=False))
            raise DataError(
                f"tfds: no data set '{self.name}'{near} in the catalogue of this TFDS or prepared in {place}"
            ) from None
