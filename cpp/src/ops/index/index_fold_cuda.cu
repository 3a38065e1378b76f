// Sums, products and extremes of the values that name one place, in an order that depends on the indices
// alone.
//
// The indices are sorted, equal ones in their order. Each thread then folds kChunk neighbours of the sorted
// list in one column: what begins and ends there goes straight to its place; what continues beyond the chunk
// is left as an entry of a second, shorter list, which is folded in the same way, until one chunk holds all.
#include "device_index.h"

#include <bit>

#include "cuda/access.h"
#include "cuda/sort.h"

namespace opsin {

namespace {

using namespace cuda;

constexpr unsigned kThreads = 256;
constexpr int kChunk = 32;

template <class T>
__device__ T identity(Fold fold) {
  using Limits = std::numeric_limits<T>;
  constexpr T kLowest = Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  constexpr T kHighest = Limits::has_infinity ? Limits::infinity() : Limits::max();
  return fold == Fold::kSum       ? T(0)
         : fold == Fold::kProduct ? T(1)
         : fold == Fold::kLargest ? kLowest
                                  : kHighest;
}

template <class T>
__device__ T combine(Fold fold, T a, T b) {
  // Integers wrap around.
  using U = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
  if (fold == Fold::kSum) return static_cast<T>(static_cast<U>(a) + static_cast<U>(b));
  if (fold == Fold::kProduct) return static_cast<T>(static_cast<U>(a) * static_cast<U>(b));
  if (b != b) return b;
  return (fold == Fold::kLargest ? b > a : b < a) ? b : a;
}

/// Memory of some dtype that is computed with as T; complex numbers are two real ones.
template <class T>
struct Values {
  char* data;
  DType dtype;
  int64_t size;  ///< Bytes of an element.

  __device__ T get(int64_t i) const { return load<T>(data + i * size, dtype); }
  __device__ void set(int64_t i, T value) const {
    store(dtype == kBool ? static_cast<T>(value != T(0)) : value, data + i * size, dtype);
  }
};

template <class T>
Values<T> values_of(const void* data, DType dtype) {
  const DType real = dtype == kComplex64 ? kFloat32 : dtype == kComplex128 ? kFloat64 : dtype;
  return {static_cast<char*>(const_cast<void*>(data)), real, static_cast<int64_t>(item_size(real))};
}

/// One list: `length` entries in ascending order of their keys, the places they go to. Keys from g.size on go
/// nowhere.
template <class T, class Key>
struct List {
  static constexpr Key kNowhere = static_cast<Key>(~Key{0});

  int64_t length, chunks;
  const Key* keys;
  const uint32_t* positions;  ///< Entry p is value positions[p]; null: value p.
  Values<T> values;           ///< [outer, length, inner]
  Values<T> target;           ///< [outer, size, inner]
  int64_t outer, size, inner;
  Fold fold;
  bool include_self;
  /// The list that follows: two entries for each chunk.
  Key* next_keys;
  T* next;
};

template <class T, class Key>
__global__ void __launch_bounds__(kThreads) fold_list(List<T, Key> list) {
  constexpr int kBatch = 4;
  const int64_t n = list.outer * list.chunks * list.inner;
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    const int64_t row = t / list.inner, i = t - row * list.inner;
    const int64_t o = row / list.chunks, chunk = row - o * list.chunks;
    const int64_t begin = chunk * kChunk;
    const int64_t end = list.length - begin < kChunk ? list.length : begin + kChunk;
    const int64_t values = o * list.length * list.inner + i;

    Key key = list.keys[begin];
    bool first = begin > 0 && list.keys[begin - 1] == key;  // Begun in an earlier chunk.
    T sum = identity<T>(list.fold);
    Key left = List<T, Key>::kNowhere, right = left;
    T left_sum = sum, right_sum = sum;
    const auto finish = [&](bool continues) {
      if (first) {
        left = key;
        left_sum = sum;
      } else if (continues) {
        right = key;
        right_sum = sum;
      } else if (key < static_cast<Key>(list.size)) {
        const int64_t at = (o * list.size + static_cast<int64_t>(key)) * list.inner + i;
        list.target.set(at, list.include_self ? combine(list.fold, list.target.get(at), sum) : sum);
      }
    };
    for (int64_t p = begin; p < end; p += kBatch) {
      // Loads first, so that they wait together.
      Key keys[kBatch];
      T found[kBatch];
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (p + j >= end) continue;
        keys[j] = list.keys[p + j];
        const int64_t at = list.positions ? static_cast<int64_t>(list.positions[p + j]) : p + j;
        found[j] = list.values.get(values + at * list.inner);
      }
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (p + j >= end) continue;
        if (keys[j] != key) {
          finish(false);
          first = false;
          key = keys[j];
          sum = identity<T>(list.fold);
        }
        sum = combine(list.fold, sum, found[j]);
      }
    }
    finish(end < list.length && list.keys[end] == key);
    if (!list.next) continue;
    // An entry that is not needed joins the other one, if there is one, as nothing.
    if (left == List<T, Key>::kNowhere) left = right;
    if (right == List<T, Key>::kNowhere) right = left;
    T* const next = list.next + (o * list.chunks + chunk) * 2 * list.inner + i;
    next[0] = left_sum;
    next[list.inner] = right_sum;
    if (o == 0 && i == 0) {
      list.next_keys[2 * chunk] = left;
      list.next_keys[2 * chunk + 1] = right;
    }
  }
}

/// Folds `values` [outer, length, inner] to the places that `keys` name.
template <class T, class Key>
void fold_sorted(const IndexParams& p, const Key* keys, const uint32_t* positions, int64_t outer,
                 int64_t size, int64_t length, int64_t inner) {
  List<T, Key> list{};
  list.length = length;
  list.keys = keys;
  list.positions = positions;
  list.values = values_of<T>(p.from, p.dtype);
  list.target = values_of<T>(p.to, p.dtype);
  list.outer = outer;
  list.size = size;
  list.inner = inner;
  list.fold = p.fold;
  list.include_self = p.include_self;
  Scratch<Key> key_memory;
  Scratch<T> memory;
  while (true) {
    list.chunks = (list.length - 1) / kChunk + 1;
    const bool last = list.chunks == 1 || p.geometry.ascends;
    Scratch<Key> next_keys;
    Scratch<T> next;
    list.next_keys = nullptr;
    list.next = nullptr;
    if (!last) {
      next_keys = Scratch<Key>(2 * list.chunks);
      next = Scratch<T>(outer * 2 * list.chunks * inner);
      list.next_keys = next_keys.data();
      list.next = next.data();
    }
    OPSIN_LAUNCH((fold_list<T, Key>), grid_for(outer * list.chunks * inner, kThreads), kThreads, 0, list);
    if (last) return;
    key_memory = std::move(next_keys);
    memory = std::move(next);
    list.length = 2 * list.chunks;
    list.keys = key_memory.data();
    list.positions = nullptr;
    list.values = values_of<T>(memory.data(), dtype_of<T>);
  }
}

/// keys[e] = the place of element e, or the number of places for an index out of range.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    make_keys(const int64_t* at, Key* keys, int64_t n, RowGeometry g, IndexCheck check) {
  for (int64_t e = thread_rank(); e < n; e += thread_count()) {
    const int64_t index = check(at[e]);
    const int64_t block = e / g.inner, o = block / g.count;
    const int64_t place = (o * g.size + index) * g.inner + (e - block * g.inner);
    keys[e] = static_cast<Key>(index < 0 ? g.outer * g.size * g.inner : place);
  }
}

template <class T, class Key>
void sort_and_fold(const IndexParams& p, const RowGeometry& keyed, int64_t outer, int64_t inner) {
  const int64_t n = keyed.outer * keyed.count * keyed.inner, places = keyed.outer * keyed.size * keyed.inner;
  OPSIN_CHECK(Error, n < INT64_C(0xffffffff), keyed.op ? keyed.op : "index_add_", ": ", n,
              " indices are too many");
  const Scratch<Key> keys(n);
  OPSIN_LAUNCH(make_keys<Key>, grid_for(n, kThreads), kThreads, 0, p.at, keys.data(), n, keyed,
               IndexCheck(keyed));
  if (keyed.ascends || n == 1) return fold_sorted<T, Key>(p, keys.data(), nullptr, outer, places, n, inner);
  const SortedRows<Key> sorted =
      sort_rows(keys.data(), 1, n, static_cast<int>(std::bit_width(static_cast<uint64_t>(places))));
  fold_sorted<T, Key>(p, sorted.keys, sorted.positions, outer, places, n, inner);
}

/// `keyed` says which element has which index; each is `inner` numbers, in `outer` blocks.
template <class T>
void fold_by_key(const IndexParams& p, const RowGeometry& keyed, int64_t outer, int64_t inner) {
  if (keyed.outer * keyed.size * keyed.inner < INT64_C(0xffffffff)) {
    sort_and_fold<T, uint32_t>(p, keyed, outer, inner);
  } else {
    sort_and_fold<T, uint64_t>(p, keyed, outer, inner);
  }
}

/// A thread for each column (and part of a complex number), from the first index to the last.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fold_columns(Values<T> from, Values<T> to, const int64_t* at, RowGeometry g, IndexCheck check, int parts,
                 Fold fold, bool include_self) {
  const int64_t width = g.inner * parts, n = g.outer * width;
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    const int64_t o = t / width, i = t - o * width;
    for (int64_t c = 0; c < g.count; ++c) {
      const int64_t row = o * g.count + c;
      const int64_t index = check(at[row * g.inner + i / parts]);
      if (index < 0) continue;
      const int64_t place = (o * g.size + index) * width + i;
      const T value = from.get(row * width + i);
      to.set(place, include_self ? combine(fold, to.get(place), value) : value);
    }
  }
}

template <class F>
void dispatch_compute(DType dtype, F&& body) {
  if (is_integral(dtype)) return body.template operator()<int64_t>();
  if (dtype == kFloat64 || dtype == kComplex128) return body.template operator()<double>();
  body.template operator()<float>();
}

void add_rows(const IndexParams& p) {
  const RowGeometry& g = p.geometry;
  if (g.outer * g.count * g.inner == 0) return;
  const RowGeometry keyed{1, g.size, g.count, 1, g.op, g.wraps, g.ascends};
  dispatch_compute(p.dtype, [&]<class T>() {
    fold_by_key<T>(p, keyed, g.outer, g.inner * (is_complex(p.dtype) ? 2 : 1));
  });
}

void fold_along(const IndexParams& p) {
  const RowGeometry& g = p.geometry;
  const int64_t columns = g.outer * g.inner, n = columns * g.count;
  const int parts = is_complex(p.dtype) ? 2 : 1;
  if (n == 0) return;
  // Columns as they are, where they are short, or many side by side; sums of 16-bit floats would be rounded
  // at each step.
  const bool rounds = compute_type(p.dtype) != p.dtype || !p.include_self;
  const bool by_column = g.count == 1 || (!rounds && (g.count <= 4 || (columns >= 65536 && g.inner >= 32)));
  dispatch_compute(p.dtype, [&]<class T>() {
    if (!by_column) return fold_by_key<T>(p, g, 1, parts);
    OPSIN_LAUNCH(fold_columns<T>, grid_for(columns * parts, kThreads), kThreads, 0,
                 values_of<T>(p.from, p.dtype), values_of<T>(p.to, p.dtype), p.at, g, IndexCheck(g), parts,
                 p.fold, p.include_self);
  });
}

}  // namespace

void register_index_fold_cuda() {
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto dtype = static_cast<DType>(i);
    rows_add.set(DeviceType::kCUDA, dtype, add_rows);
    along_fold.set(DeviceType::kCUDA, dtype, fold_along);
  }
}

}  // namespace opsin
