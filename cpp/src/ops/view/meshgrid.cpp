// Coordinate grids, as views of the coordinates.
#include "parts.h"

#include <opsin/ops/view.h>

#include "core/registry.h"

namespace opsin {

namespace {

TensorList meshgrid(TensorSpan tensors, std::optional<std::string_view> indexing) {
  const std::string_view order = indexing.value_or("ij");
  OPSIN_CHECK(Error, order == "ij" || order == "xy",
              "meshgrid: indexing must be one of \"xy\" or \"ij\", but received: ", order);
  const bool swaps = order == "xy" && tensors.size() >= 2;
  TensorList inputs(tensors.begin(), tensors.end());
  if (swaps) std::swap(inputs[0], inputs[1]);
  Dims sizes;
  for (const Tensor& tensor : inputs) {
    OPSIN_CHECK(ShapeError, tensor.dim() <= 1,
                "meshgrid: Expected 0D or 1D tensor in the tensor list but got: ", str(tensor.sizes()));
    OPSIN_CHECK(Error, tensor.dtype() == inputs[0].dtype(),
                "meshgrid: expects all tensors to have the same dtype, got ", name(inputs[0].dtype()),
                " and ", name(tensor.dtype()));
    sizes.push_back(tensor.numel());
  }
  TensorList grids;
  for (size_t i = 0; i < inputs.size(); ++i) {
    Dims own(inputs.size(), 1);
    own[i] = inputs[i].numel();
    grids.push_back(expand(reshape(inputs[i], own), sizes));
  }
  if (swaps) std::swap(grids[0], grids[1]);
  return grids;
}

}  // namespace

void register_meshgrid(Registry& registry) {
  registry.add<&meshgrid>(
      "meshgrid(Tensor[]... tensors, str? indexing=None) -> Tensor[]",
      "Grids of coordinates from vectors: one for each, in the shape of all; indexing 'ij' or 'xy'.");
}

}  // namespace opsin
