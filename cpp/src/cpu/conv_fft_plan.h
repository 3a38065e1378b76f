// How an FFT convolution is cut into tiles, and the transforms of a tile.
#pragma once

#include "conv.h"

#include <cstdint>
#include <vector>

#include "cpu/kernels/conv_fft_table.h"
#include "cpu/scratch.h"

namespace opsin::cpu::conv {

/// Most lanes of a vector.
inline constexpr int64_t kMostLanes = 16;

/// A tensor as three axes of `length` coordinates, of which every `every`-th is an element and the others are
/// zeros (a stride or a dilation). Strides may be negative.
template <class T>
struct FftField {
  T* data;
  int64_t stride[3], size[3], every[3];

  int64_t length(int axis) const { return (size[axis] - 1) * every[axis] + 1; }
};

/// All products in one form: a correlation y[o] = sum over t of x[o - pad + t] * w[t] along each axis, with
/// sums over the inputs of a group. The gradient of the input is that of grad_y with the weight mirrored; the
/// gradient of the weight makes w of x and y.
template <class T>
struct FftProblem {
  bool makes_weight;
  int64_t batch, groups, inputs, outputs;  ///< the last two of a group
  FftField<T> x, y, w;
  int64_t x_image, y_image;
  int64_t w_group, w_output, w_input;
  int64_t pad[3];
  const T* bias;
  bool accumulate;
};

template <class T>
FftProblem<T> fft_forward_problem(const ConvGeometry&, const T* x, const T* weight, const T* bias, T* y);
template <class T>
FftProblem<T> fft_backward_input_problem(const ConvGeometry&, const T* grad_y, const T* weight, T* grad_x);
template <class T>
FftProblem<T> fft_backward_weight_problem(const ConvGeometry&, const T* x, const T* grad_y, T* grad_weight,
                                          bool accumulate);

/// The tiles: transforms of length n, each for `block` coordinates of y.
struct FftTiles {
  int64_t n[3], block[3], count[3];
  int64_t frequencies;
  double cost;        ///< estimated, in vector instructions of the whole product
  double image_cost;  ///< of one image alone

  int64_t tiles() const { return count[0] * count[1] * count[2]; }
  int64_t row_frequencies() const { return n[2] / 2 + 1; }
};

/// Whether lanes run over the outputs of all groups, and over tiles where these are few, with the inputs
/// repeated for each. Otherwise lanes run over the outputs of one group, and products are sums over its
/// inputs.
template <class T>
bool is_lanewise(const FftProblem<T>& problem, int64_t lanes);

/// The tiles with the least cost.
template <class T>
FftTiles choose_tiles(const FftProblem<T>& problem, int64_t lanes);

/// Images and tiles whose spectra of `inputs` padded channels exist at once.
int64_t fft_tiles_at_once(int64_t frequencies, int64_t lanes, int64_t element, int64_t channels);

template <class T>
const FftKernels<T>& fft_kernels() {
  if constexpr (std::is_same_v<T, float>) return OPSIN_ISA_SELECT(fft_table).f32;
  if constexpr (std::is_same_v<T, double>) return OPSIN_ISA_SELECT(fft_table).f64;
}

/// What the lanes of a vector are: elements at `offset`, with the first cell of the tile at coordinate
/// `origin`. Lanes beyond `count` are zeros.
struct FftPlanes {
  int64_t count = 0;
  bool adjacent = false;
  int64_t offset[kMostLanes], origin[kMostLanes][3];

  void add(int64_t at, const int64_t (&first)[3]);
  /// To be called after the last one.
  void finish();
};

/// A complex transform with its tables.
template <class T>
class FftTables {
 public:
  explicit FftTables(int64_t n);
  FftTables(const FftTables&) = delete;
  FftTables& operator=(const FftTables&) = delete;
  const FftPlan<T>& plan() const { return plan_; }

 private:
  FftPlan<T> plan_;
  std::vector<T> values_;
};

template <class T>
struct FftTileTables {
  explicit FftTileTables(const FftTiles& t)
      : axis{FftTables<T>(t.n[0]), FftTables<T>(t.n[1]), FftTables<T>(t.n[2] / 2)} {}
  FftTables<T> axis[3];
};

/// Transforms of one thread.
template <class T>
class FftTransforms {
 public:
  FftTransforms(const FftTiles& tiles, const FftTileTables<T>& tables, const FftKernels<T>& kernels);

  /// The spectrum of the cells [0, limit) of a tile; frequencies are `step` elements apart.
  void forward(const FftField<T>& field, const FftPlanes& planes, const int64_t (&limit)[3], T* re, T* im,
               int64_t step);
  /// Stores cells [0, limit) of the tile with that spectrum, plus bias [lanes] where it is not null.
  void inverse(const T* re, const T* im, int64_t step, const FftField<T>& field, const FftPlanes& planes,
               const int64_t (&limit)[3], const T* bias, bool accumulate);

 private:
  /// The row of a tile as memory of the field; false if it has no elements.
  bool locate(const FftField<T>& field, const FftPlanes& planes, const int64_t (&limit)[3], int64_t d,
              int64_t h);

  const FftTiles& tiles_;
  const FftTileTables<T>& tables_;
  const FftKernels<T>& kernels_;
  int64_t pair_;  ///< elements of a complex vector
  Scratch<T> tile_, row_, lines_;
  T* memory_[kMostLanes];
  int64_t first_[kMostLanes], count_[kMostLanes];
  FftAccess<T> access_{};
};

}  // namespace opsin::cpu::conv
