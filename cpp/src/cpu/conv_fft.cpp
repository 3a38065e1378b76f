// FFT convolution: spectra of tiles, their products, and the way back.
//
// With many outputs in a group, spectra of the input are kept ([frequencies][tiles][channels]) and each
// vector of outputs is a task: a matrix product per frequency with the spectra of its weights, made on the
// spot. With few, lanes run over the outputs of all groups (and over tiles, where these are few too), and
// every task transforms what it needs of input and weight.
#include "conv_algorithm.h"
#include "conv_fft_plan.h"
#include "conv_plan.h"

#include <algorithm>

#include "cpu/thread_pool.h"

namespace opsin::cpu::conv {
namespace {

/// Bytes of weight spectra that a task holds.
constexpr int64_t kWeightBytes = int64_t{2} << 20;
/// Tasks for which the tiles of one vector of outputs are divided.
constexpr int64_t kTasks = 16;

template <class T>
class FftRun {
 public:
  explicit FftRun(const FftProblem<T>& problem)
      : p_(problem),
        kernels_(fft_kernels<T>()),
        lanes_(kernels_.lanes),
        tiles_(choose_tiles(problem, lanes_)),
        tables_(tiles_),
        images_(p_.batch * tiles_.tiles()) {}

  void run() const { is_lanewise(p_, lanes_) ? run_lanes() : run_products(); }

 private:
  /// The first coordinates of y in tile `image`, and its image.
  int64_t place(int64_t image, int64_t (&y)[3]) const {
    for (int a = 2; a >= 0; --a) {
      y[a] = image % tiles_.count[a] * tiles_.block[a];
      image /= tiles_.count[a];
    }
    return image;
  }
  void add_x(FftPlanes& planes, int64_t image, int64_t channel) const {
    int64_t at[3];
    const int64_t offset = place(image, at) * p_.x_image + channel;
    for (int a = 0; a < 3; ++a) at[a] -= p_.pad[a];
    planes.add(offset, at);
  }
  void add_y(FftPlanes& planes, int64_t image, int64_t channel) const {
    int64_t at[3];
    const int64_t offset = place(image, at) * p_.y_image + channel;
    planes.add(offset, at);
  }
  void add_w(FftPlanes& planes, int64_t group, int64_t output, int64_t input) const {
    planes.add(group * p_.w_group + output * p_.w_output + input * p_.w_input, {0, 0, 0});
  }
  int64_t spectrum() const { return tiles_.frequencies * 2 * lanes_; }
  int64_t spectra_within(int64_t bytes, int64_t most) const {
    return std::clamp<int64_t>(bytes / (spectrum() * static_cast<int64_t>(sizeof(T))), 1, most);
  }

  // Matrix products.

  void run_products() const {
    const int64_t padded = ceil_div(p_.inputs, lanes_) * lanes_;
    const int64_t channel_bytes = tiles_.frequencies * 2 * static_cast<int64_t>(sizeof(T));
    const int64_t channels = std::max(lanes_, fft_shared_bytes / channel_bytes / lanes_ * lanes_);
    const int64_t inputs = std::min(padded, channels);
    const int64_t groups = std::clamp<int64_t>(channels / padded, 1, p_.groups);
    const int64_t images =
        std::min(images_, fft_tiles_at_once(tiles_.frequencies, lanes_, sizeof(T), groups * inputs));
    const Scratch<T> x(tiles_.frequencies * 2 * images * groups * inputs);
    for (int64_t group = 0; group < p_.groups; group += groups) {
      for (int64_t image = 0; image < images_; image += images) {
        for (int64_t input = 0; input < p_.inputs; input += inputs) {
          multiply({group, std::min(groups, p_.groups - group), image, std::min(images, images_ - image),
                    input, std::min(inputs, p_.inputs - input)},
                   x.get());
        }
      }
    }
  }

  struct Part {
    int64_t group, groups, image, images, input, inputs;
  };

  void multiply(const Part& part, T* x) const {
    const int64_t vectors = ceil_div(part.inputs, lanes_), channels = part.groups * vectors * lanes_;
    const int64_t step = part.images * 2 * channels;
    parallel_for(part.images * part.groups * vectors, 1, [&](int64_t begin, int64_t end) {
      FftTransforms<T> transforms(tiles_, tables_, kernels_);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t vector = i % vectors * lanes_, group = i / vectors % part.groups,
                      image = i / vectors / part.groups;
        FftPlanes planes;
        for (int64_t l = 0; l < std::min(lanes_, part.inputs - vector); ++l) {
          add_x(planes, part.image + image, (part.group + group) * p_.inputs + part.input + vector + l);
        }
        planes.finish();
        T* to = x + image * 2 * channels + group * vectors * lanes_ + vector;
        transforms.forward(p_.x, planes, tiles_.n, to, to + channels, step);
      }
    });
    const int64_t blocks = ceil_div(p_.outputs, lanes_);
    parallel_for(part.groups * blocks, 1, [&](int64_t begin, int64_t end) {
      FftTransforms<T> transforms(tiles_, tables_, kernels_);
      const int64_t at_once = spectra_within(kWeightBytes, part.inputs);
      const Scratch<T> y(part.images * spectrum()), w(at_once * spectrum());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / blocks, output = i % blocks * lanes_;
        FftProduct<T> product{};
        product.frequencies = tiles_.frequencies;
        product.a_frequency = step;
        product.a_imag = channels;
        const T* from = x + group * vectors * lanes_;
        if (p_.makes_weight) {
          make_weights(part, part.group + group, output, at_once, transforms, product, from, y.get(),
                       w.get());
        } else {
          make_outputs(part, part.group + group, output, at_once, transforms, product, from, y.get(),
                       w.get());
        }
      }
    });
  }

  FftPlanes output_planes(int64_t image, int64_t group, int64_t output) const {
    FftPlanes planes;
    for (int64_t l = 0; l < std::min(lanes_, p_.outputs - output); ++l) {
      add_y(planes, image, group * p_.outputs + output + l);
    }
    planes.finish();
    return planes;
  }
  FftPlanes weight_planes(int64_t group, int64_t output, int64_t input) const {
    FftPlanes planes;
    for (int64_t l = 0; l < std::min(lanes_, p_.outputs - output); ++l)
      add_w(planes, group, output + l, input);
    planes.finish();
    return planes;
  }

  void make_outputs(const Part& part, int64_t group, int64_t output, int64_t at_once,
                    FftTransforms<T>& transforms, FftProduct<T> product, const T* x, T* y, T* w) const {
    product.rows = part.images;
    product.a_row = 2 * product.a_imag;
    product.a_sum = 1;
    product.b = w;
    product.z = y;
    for (int64_t first = 0; first < part.inputs; first += at_once) {
      const int64_t count = std::min(at_once, part.inputs - first), step = count * 2 * lanes_;
      for (int64_t i = 0; i < count; ++i) {
        T* to = w + i * 2 * lanes_;
        transforms.forward(p_.w, weight_planes(group, output, part.input + first + i), tiles_.n, to,
                           to + lanes_, step);
      }
      product.sums = count;
      product.a = x + first;
      product.accumulate = first > 0;
      kernels_.product(product);
    }
    const T* bias = p_.bias == nullptr || part.input > 0 ? nullptr : p_.bias + group * p_.outputs + output;
    for (int64_t image = 0; image < part.images; ++image) {
      const T* from = y + image * 2 * lanes_;
      transforms.inverse(from, from + lanes_, part.images * 2 * lanes_, p_.y,
                         output_planes(part.image + image, group, output), tiles_.block, bias,
                         p_.accumulate || part.input > 0);
    }
  }

  void make_weights(const Part& part, int64_t group, int64_t output, int64_t at_once,
                    FftTransforms<T>& transforms, FftProduct<T> product, const T* x, T* y, T* w) const {
    product.sums = part.images;
    product.a_sum = 2 * product.a_imag;
    product.a_row = 1;
    product.b = y;
    product.z = w;
    for (int64_t image = 0; image < part.images; ++image) {
      T* to = y + image * 2 * lanes_;
      transforms.forward(p_.y, output_planes(part.image + image, group, output), tiles_.block, to,
                         to + lanes_, part.images * 2 * lanes_);
    }
    for (int64_t first = 0; first < part.inputs; first += at_once) {
      const int64_t count = std::min(at_once, part.inputs - first);
      product.rows = count;
      product.a = x + first;
      kernels_.product(product);
      for (int64_t i = 0; i < count; ++i) {
        const T* from = w + i * 2 * lanes_;
        transforms.inverse(from, from + lanes_, count * 2 * lanes_, p_.w,
                           weight_planes(group, output, part.input + first + i), tiles_.n, nullptr,
                           p_.accumulate || part.image > 0);
      }
    }
  }

  // Lanes over outputs. Where there are fewer than lanes, a vector holds several tiles.

  int64_t all_outputs() const { return p_.groups * p_.outputs; }
  int64_t slots() const { return std::max<int64_t>(1, lanes_ / all_outputs()); }
  /// Calls add(output, image) for the lanes of a vector.
  template <class F>
  FftPlanes lane_planes(int64_t block, int64_t vector, F&& add) const {
    FftPlanes planes;
    for (int64_t s = 0; s < slots(); ++s) {
      const int64_t image = vector * slots() + s;
      for (int64_t k = block * lanes_; image < images_ && k < std::min((block + 1) * lanes_, all_outputs());
           ++k) {
        add(planes, k, image);
      }
    }
    planes.finish();
    return planes;
  }
  FftPlanes lane_inputs(int64_t block, int64_t vector, int64_t input) const {
    return lane_planes(block, vector, [&](FftPlanes& planes, int64_t k, int64_t image) {
      add_x(planes, image, k / p_.outputs * p_.inputs + input);
    });
  }
  FftPlanes lane_outputs(int64_t block, int64_t vector) const {
    return lane_planes(block, vector,
                       [&](FftPlanes& planes, int64_t k, int64_t image) { add_y(planes, image, k); });
  }
  FftPlanes lane_weights(int64_t block, int64_t vector, int64_t input) const {
    return lane_planes(block, vector, [&](FftPlanes& planes, int64_t k, int64_t) {
      add_w(planes, k / p_.outputs, k % p_.outputs, input);
    });
  }

  void run_lanes() const {
    const int64_t blocks = ceil_div(all_outputs(), lanes_), vectors = ceil_div(images_, slots());
    const int64_t at_once = spectra_within(2 * kWeightBytes, p_.inputs);
    if (p_.makes_weight) return run_lane_weights(blocks, vectors, at_once);
    const int64_t each = ceil_div(vectors, std::clamp<int64_t>(kTasks / blocks, 1, vectors));
    const int64_t parts = ceil_div(vectors, each);
    parallel_for(blocks * parts, 1, [&](int64_t begin, int64_t end) {
      FftTransforms<T> transforms(tiles_, tables_, kernels_);
      const Scratch<T> x(spectrum()), y(spectrum()), w(at_once * spectrum());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t block = i / parts, first_vector = i % parts * each;
        for (int64_t first = 0; first < p_.inputs; first += at_once) {
          const int64_t count = std::min(at_once, p_.inputs - first);
          for (int64_t j = 0; j < count; ++j) {
            transform(transforms, p_.w, lane_weights(block, 0, first + j), tiles_.n,
                      w.get() + j * spectrum());
          }
          for (int64_t v = first_vector; v < std::min(first_vector + each, vectors); ++v) {
            for (int64_t j = 0; j < count; ++j) {
              transform(transforms, p_.x, lane_inputs(block, v, first + j), tiles_.n, x.get());
              kernels_.lanewise({tiles_.frequencies, x.get(), w.get() + j * spectrum(), y.get(), j > 0});
            }
            const FftPlanes planes = lane_outputs(block, v);
            T bias[kMostLanes] = {};
            if (p_.bias != nullptr && first == 0) {
              const int64_t once = std::min(lanes_, all_outputs());
              for (int64_t l = 0; l < planes.count; ++l) bias[l] = p_.bias[block * lanes_ + l % once];
            }
            transforms.inverse(y.get(), y.get() + lanes_, 2 * lanes_, p_.y, planes, tiles_.block, bias,
                               p_.accumulate || first > 0);
          }
        }
      }
    });
  }

  /// Sums over tiles are divided where there are few outputs and inputs.
  void run_lane_weights(int64_t blocks, int64_t vectors, int64_t at_once) const {
    const int64_t chunks = ceil_div(p_.inputs, at_once), units = blocks * chunks;
    const int64_t taps = volume(p_.w.size), elements = all_outputs() * p_.inputs * taps;
    const int64_t fitting = (int64_t{8} << 20) / (elements * static_cast<int64_t>(sizeof(T)));
    const int64_t most = std::clamp<int64_t>(fitting, 1, vectors);
    const int64_t each = ceil_div(vectors, std::clamp<int64_t>(kTasks / units, 1, most));
    const int64_t parts = ceil_div(vectors, each);
    // Lanes of several tiles have one target, which is a sum even where the tiles are not divided.
    const bool direct = parts == 1 && slots() == 1;
    const Scratch<T> sums(direct ? 0 : parts * elements);
    if (!direct) std::fill_n(sums.get(), parts * elements, T{});
    parallel_for(units * parts, 1, [&](int64_t begin, int64_t end) {
      FftTransforms<T> transforms(tiles_, tables_, kernels_);
      const Scratch<T> x(spectrum()), y(spectrum()), w(at_once * spectrum());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = i % parts, chunk = i / parts % chunks, block = i / parts / chunks;
        const int64_t first = chunk * at_once, count = std::min(at_once, p_.inputs - first);
        const int64_t first_vector = part * each;
        for (int64_t v = first_vector; v < std::min(first_vector + each, vectors); ++v) {
          transform(transforms, p_.y, lane_outputs(block, v), tiles_.block, y.get());
          for (int64_t j = 0; j < count; ++j) {
            transform(transforms, p_.x, lane_inputs(block, v, first + j), tiles_.n, x.get());
            kernels_.lanewise(
                {tiles_.frequencies, x.get(), y.get(), w.get() + j * spectrum(), v > first_vector});
          }
        }
        FftField<T> to = p_.w;
        if (!direct) to.data = sums.get() + part * elements;
        for (int64_t j = 0; j < count; ++j) {
          const T* from = w.get() + j * spectrum();
          transforms.inverse(from, from + lanes_, 2 * lanes_, to,
                             lane_weights(block, first_vector, first + j), tiles_.n, nullptr,
                             !direct || p_.accumulate);
        }
      }
    });
    if (direct) return;
    for (int64_t e = 0; e < elements; ++e) {
      T sum = sums.get()[e];
      for (int64_t part = 1; part < parts; ++part) sum += sums.get()[part * elements + e];
      p_.w.data[e] = p_.accumulate ? p_.w.data[e] + sum : sum;
    }
  }

  void transform(FftTransforms<T>& transforms, const FftField<T>& field, const FftPlanes& planes,
                 const int64_t (&limit)[3], T* to) const {
    transforms.forward(field, planes, limit, to, to + lanes_, 2 * lanes_);
  }

  const FftProblem<T> p_;
  const FftKernels<T>& kernels_;
  const int64_t lanes_;
  const FftTiles tiles_;
  const FftTileTables<T> tables_;
  const int64_t images_;  ///< tiles of all images
};

}  // namespace

template <class T>
void fft_forward(const ConvGeometry& g, const T* x, const T* weight, const T* bias, T* y) {
  FftRun<T>(fft_forward_problem(g, x, weight, bias, y)).run();
}
template <class T>
void fft_backward_input(const ConvGeometry& g, const T* grad_y, const T* weight, T* grad_x) {
  FftRun<T>(fft_backward_input_problem(g, grad_y, weight, grad_x)).run();
}
template <class T>
void fft_backward_weight(const ConvGeometry& g, const T* x, const T* grad_y, T* grad_weight, T* grad_bias,
                         bool accumulate) {
  FftRun<T>(fft_backward_weight_problem(g, x, grad_y, grad_weight, accumulate)).run();
  if (grad_bias != nullptr) bias_gradient(g, grad_y, grad_bias, accumulate);
}

#define OPSIN_INSTANTIATE(T)                                                        \
  template void fft_forward(const ConvGeometry&, const T*, const T*, const T*, T*); \
  template void fft_backward_input(const ConvGeometry&, const T*, const T*, T*);    \
  template void fft_backward_weight(const ConvGeometry&, const T*, const T*, T*, T*, bool);
OPSIN_INSTANTIATE(float)
OPSIN_INSTANTIATE(double)
#undef OPSIN_INSTANTIATE

}  // namespace opsin::cpu::conv
