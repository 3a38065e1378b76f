// Resampling on the CPU: tables of the axes are written out once per call, then rows of the output, and
// ranges of channels where a row is long, are shared among the threads.
#include "interpolate_kernels.h"
#include "interpolate_table.h"

#include <algorithm>
#include <vector>

#include <opsin/error.h>

#include "cpu/scratch.h"
#include "cpu/thread_pool.h"

namespace opsin {

namespace {

/// The rows of one axis as they are read.
template <class T>
class Rows {
 public:
  Rows(const AxisRule& rule, bool transposed)
      : in_(transposed ? rule.out : rule.in),
        out_(transposed ? rule.in : rule.out),
        first_(static_cast<size_t>(out_)),
        count_(static_cast<size_t>(out_)) {
    constexpr int64_t kGrain = 4096;
    for (int64_t o = 0; o < out_; ++o) {
      const AxisWindow w = transposed ? axis::readers_of(rule, o) : axis::window_of(rule, o);
      const auto i = static_cast<size_t>(o);
      first_[i] = w.first;
      count_[i] = w.count;
      most_ = std::max(most_, w.count);
    }
    weights_.resize(static_cast<size_t>(out_ * most_));
    cpu::parallel_for(out_, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; ++o) {
        T* to = weights_.data() + o * most_;
        const auto put = [&](int64_t k, double weight) { to[k] = static_cast<T>(weight); };
        axis::fill_row(rule, transposed, o, put);
      }
    });
  }

  cpu::ResampleAxis get() const { return {in_, out_, most_, first_.data(), count_.data(), weights_.data()}; }

 private:
  int64_t in_, out_, most_ = 1;
  std::vector<int64_t> first_, count_;
  std::vector<T> weights_;
};

/// cpu::ResampleRows::places and weights.
template <class T>
struct Places {
  std::vector<int32_t> places;
  std::vector<T> weights;

  Places(const cpu::ResampleAxis& axis, int64_t inner) {
    const int64_t n = axis.out * inner, none = axis.in * inner;
    places.assign(static_cast<size_t>(n * axis.most), static_cast<int32_t>(none));
    weights.assign(places.size(), T(0));
    for (int64_t o = 0; o < axis.out; ++o) {
      for (int64_t k = 0; k < axis.count[o]; ++k) {
        for (int64_t c = 0; c < inner; ++c) {
          const auto at = static_cast<size_t>(k * n + o * inner + c);
          places[at] = static_cast<int32_t>((axis.first[o] + k) * inner + c);
          weights[at] = static_cast<const T*>(axis.weights)[o * axis.most + k];
        }
      }
    }
  }
};

/// The longest range of whole windows that are two apart.
void set_apart(cpu::ResampleRows& a) {
  const cpu::ResampleAxis& axis = a.axis[2];
  for (int64_t o = 0, begin = 0; o < axis.out; ++o) {
    const bool whole = axis.count[o] == axis.most;
    if (!whole || (o > begin && axis.first[o] != axis.first[o - 1] + 2)) begin = whole ? o : o + 1;
    if (o + 1 - begin > a.apart_end - a.apart_begin) {
      a.apart_begin = begin;
      a.apart_end = o + 1;
    }
  }
}

template <class T>
void run(const ResampleParams& p, cpu::ResampleTable::Run kernel) {
  const Rows<T> rows[3] = {{p.axis[0], p.transposed}, {p.axis[1], p.transposed}, {p.axis[2], p.transposed}};
  cpu::ResampleRows a{};
  for (int i = 0; i < 3; ++i) a.axis[i] = rows[i].get();
  a.inner = p.inner;
  a.x = p.x;
  a.y = p.y;
  // A pixel of so few elements would leave most of a vector empty.
  constexpr int64_t kFew = 8;
  const cpu::ResampleAxis& last = a.axis[2];
  const bool gathers = p.inner < kFew && (last.in + 1) * p.inner <= INT32_MAX;
  std::vector<Places<T>> places;
  if (gathers) {
    places.emplace_back(last, p.inner);
    a.places = places[0].places.data();
    a.weights = places[0].weights.data();
    if (p.inner == 1) set_apart(a);
  }
  // Merged rows pay where their pixels are read several times.
  const int64_t of_rows = a.axis[0].most * a.axis[1].most, taps = of_rows * last.most;
  a.at_once = !gathers && taps <= cpu::kMostAtOnce && last.most > 1 &&
              taps * last.out <= (of_rows + 1) * last.in + last.most * last.out;
  // What is merged should stay in the second cache.
  constexpr int64_t kBuffer = 24576;
  int64_t block = p.inner;
  if (!gathers && !a.at_once && last.in * p.inner > kBuffer) {
    block = std::min(p.inner, std::max<int64_t>(kBuffer / last.in / 16 * 16, 64));
  }
  const int64_t ranges = (p.inner + block - 1) / block;
  const int64_t all = p.outer * a.axis[0].out * a.axis[1].out;
  const int64_t work = block * (last.in * a.axis[0].most * a.axis[1].most + last.out * last.most);
  if (all == 0) return;
  const int64_t grain = std::max<int64_t>(1, 65536 / std::max<int64_t>(1, work));
  cpu::parallel_for((all + grain - 1) / grain * ranges, 1, [&](int64_t begin, int64_t end) {
    const cpu::Scratch<T> buffer(last.in * block + 1);
    for (int64_t task = begin; task < end; ++task) {
      cpu::ResamplePart part{};
      part.begin = task / ranges * grain;
      part.end = std::min(part.begin + grain, all);
      part.c0 = task % ranges * block;
      part.c1 = std::min(part.c0 + block, p.inner);
      part.buffer = buffer.get();
      kernel(a, part);
    }
  });
}

void run_resample(const ResampleParams& p) {
  const cpu::ResampleTable& table = OPSIN_ISA_SELECT(cpu::resample_table);
  switch (p.dtype) {
    case kFloat64:
      return run<double>(p, table.f64);
    case kFloat16:
      return run<float>(p, table.f16);
    case kBFloat16:
      return run<float>(p, table.bf16);
    default:
      return run<float>(p, table.f32);
  }
}

}  // namespace

void register_interpolate_cpu() {
  for (const DType dtype : {kFloat32, kFloat64, kFloat16, kBFloat16}) {
    resample.set(DeviceType::kCPU, dtype, run_resample);
  }
}

}  // namespace opsin
