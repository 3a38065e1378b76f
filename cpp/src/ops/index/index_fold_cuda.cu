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
/// Entries that a thread loads at once, so that loads wait together.
constexpr int kBatch = 4;

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

  template <int kWidth>
  __device__ void get(T (&to)[kWidth], int64_t i) const {
    load(to, data + i * size, dtype);
  }
  template <int kWidth>
  __device__ void set(T (&values)[kWidth], int64_t i) const {
    OPSIN_UNROLL
    for (T& value : values) value = dtype == kBool ? static_cast<T>(value != T(0)) : value;
    store(values, data + i * size, dtype);
  }
  /// Whether `width` elements may be read at once from where `inner` divides.
  bool fits(int64_t inner, int64_t width) const {
    return inner % width == 0 && reinterpret_cast<uintptr_t>(data) % static_cast<uint64_t>(width * size) == 0;
  }
};

template <class T>
Values<T> values_of(const void* data, DType dtype) {
  const DType real = dtype == kComplex64 ? kFloat32 : dtype == kComplex128 ? kFloat64 : dtype;
  return {static_cast<char*>(const_cast<void*>(data)), real, static_cast<int64_t>(item_size(real))};
}

/// Entries in ascending order of their keys, the places they go to. Keys from `size` on go nowhere.
template <class T, class Key>
struct List {
  static constexpr Key kNowhere = static_cast<Key>(~Key{0});

  bool by_row;  ///< A list for each of `outer`, else one for all.
  int64_t length, chunk, chunks;
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

/// A thread folds one chunk of a list in kWidth neighbouring columns.
template <class T, class Key, int kWidth>
__global__ void __launch_bounds__(kThreads) fold_list(List<T, Key> list) {
  constexpr Key kNowhere = List<T, Key>::kNowhere;
  using Part = Pack<T, kWidth>;
  const auto merge = [&](Part& sum, const Part& part) {
    OPSIN_UNROLL
    for (int w = 0; w < kWidth; ++w) sum.value[w] = combine(list.fold, sum.value[w], part.value[w]);
  };
  Part nothing;
  OPSIN_UNROLL
  for (int w = 0; w < kWidth; ++w) nothing.value[w] = identity<T>(list.fold);

  const int64_t across = list.inner / kWidth, n = list.outer * list.chunks * across;
  OPSIN_NO_UNROLL
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    const int64_t row = t / across, i = (t - row * across) * kWidth;
    const int64_t o = row / list.chunks, chunk = row - o * list.chunks;
    const int64_t begin = chunk * list.chunk;
    const int64_t end = list.length - begin < list.chunk ? list.length : begin + list.chunk;
    const int64_t values = o * list.length * list.inner + i;
    const int64_t which = list.by_row ? o : 0;
    const Key* const keys = list.keys + which * list.length;
    const uint32_t* const positions = list.positions ? list.positions + which * list.length : nullptr;

    Key key = keys[begin];
    bool first = begin > 0 && keys[begin - 1] == key;  // Begun in an earlier chunk.
    Part sum = nothing, left_sum = nothing, right_sum = nothing;
    Key left = kNowhere, right = kNowhere;
    const auto finish = [&](bool continues) {
      if (first) {
        left = key;
        left_sum = sum;
      } else if (continues) {
        right = key;
        right_sum = sum;
      } else if (key < static_cast<Key>(list.size)) {
        const int64_t at = (o * list.size + static_cast<int64_t>(key)) * list.inner + i;
        Part result = sum;
        if (list.include_self) {
          list.target.get(result.value, at);
          merge(result, sum);
        }
        list.target.set(result.value, at);
      }
    };
    for (int64_t p = begin; p < end; p += kBatch) {
      Key found_keys[kBatch];
      Part found[kBatch];
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (p + j >= end) continue;
        found_keys[j] = keys[p + j];
        const int64_t at = positions ? static_cast<int64_t>(positions[p + j]) : p + j;
        list.values.get(found[j].value, values + at * list.inner);
      }
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (p + j >= end) continue;
        if (found_keys[j] != key) {
          finish(false);
          first = false;
          key = found_keys[j];
          sum = nothing;
        }
        merge(sum, found[j]);
      }
    }
    finish(end < list.length && keys[end] == key);
    if (!list.next) continue;
    // An entry that is not needed joins the other one, if there is one, as nothing.
    if (left == kNowhere) left = right;
    if (right == kNowhere) right = left;
    T* const next = list.next + (o * list.chunks + chunk) * 2 * list.inner + i;
    *reinterpret_cast<Part*>(next) = left_sum;
    *reinterpret_cast<Part*>(next + list.inner) = right_sum;
    if (i == 0 && (o == 0 || list.by_row)) {
      Key* const next_keys = list.next_keys + (which * list.chunks + chunk) * 2;
      next_keys[0] = left;
      next_keys[1] = right;
    }
  }
}

template <class T, class Key, int kWidth>
void launch_list(const List<T, Key>& list) {
  const int64_t n = list.outer * list.chunks * (list.inner / kWidth);
  OPSIN_LAUNCH((fold_list<T, Key, kWidth>), grid_for(n, kThreads), kThreads, 0, list);
}

/// What is folded: `outer` blocks of `length` values of `inner` numbers each, to `size` places; a list of
/// keys for each block or for all.
struct Shape {
  int64_t outer, size, length, inner;
  bool by_row;
};

template <class T, class Key>
void fold_sorted(const IndexParams& p, const Key* keys, const uint32_t* positions, const Shape& shape) {
  List<T, Key> list{};
  list.by_row = shape.by_row;
  list.length = shape.length;
  list.keys = keys;
  list.positions = positions;
  list.values = values_of<T>(p.from, p.dtype);
  list.target = values_of<T>(p.to, p.dtype);
  list.outer = shape.outer;
  list.size = shape.size;
  list.inner = shape.inner;
  list.fold = p.fold;
  list.include_self = p.include_self;
  // Rows of floats by four; other types are rare.
  constexpr int kWidth = std::is_same_v<T, float> && sizeof(Key) == 4 ? 4 : 1;
  const bool wide = list.values.fits(list.inner, kWidth) && list.target.fits(list.inner, kWidth);
  const int64_t work = list.outer * list.length * list.inner / (wide ? kWidth : 1);
  list.chunk = work >= (int64_t{1} << 20) ? 32 : 16;
  Scratch<Key> key_memory;
  Scratch<T> memory;
  while (true) {
    list.chunks = (list.length - 1) / list.chunk + 1;
    const bool last = list.chunks == 1 || p.geometry.ascends;
    Scratch<Key> next_keys;
    Scratch<T> next;
    list.next_keys = nullptr;
    list.next = nullptr;
    if (!last) {
      next_keys = Scratch<Key>((list.by_row ? list.outer : 1) * 2 * list.chunks);
      next = Scratch<T>(list.outer * 2 * list.chunks * list.inner);
      list.next_keys = next_keys.data();
      list.next = next.data();
    }
    if (wide) {
      launch_list<T, Key, kWidth>(list);
    } else {
      launch_list<T, Key, 1>(list);
    }
    if (last) return;
    key_memory = std::move(next_keys);
    memory = std::move(next);
    list.length = 2 * list.chunks;
    list.keys = key_memory.data();
    list.positions = nullptr;
    list.values = values_of<T>(memory.data(), dtype_of<T>);
  }
}

/// keys[e] = the place of element e in `lists` equal parts of the elements, or the number of places of such a
/// part for an index out of range.
template <class Key>
__global__ void __launch_bounds__(kThreads)
    make_keys(const int64_t* at, Key* keys, int64_t n, RowGeometry g, IndexCheck check, int64_t lists) {
  const int64_t outer = g.outer / lists;
  OPSIN_NO_UNROLL
  for (int64_t e = thread_rank(); e < n; e += thread_count()) {
    const int64_t index = check(at[e]);
    const int64_t block = e / g.inner, o = block / g.count;
    const int64_t place = (o % outer * g.size + index) * g.inner + (e - block * g.inner);
    keys[e] = static_cast<Key>(index < 0 ? outer * g.size * g.inner : place);
  }
}

/// `keyed` says which element has which index.
template <class T, class Key>
void sort_and_fold(const IndexParams& p, const RowGeometry& keyed, const Shape& shape) {
  const int64_t lists = shape.by_row ? shape.outer : 1, n = lists * shape.length;
  const Scratch<Key> keys(n);
  OPSIN_LAUNCH(make_keys<Key>, grid_for(n, kThreads), kThreads, 0, p.at, keys.data(), n, keyed,
               IndexCheck(keyed), lists);
  if (keyed.ascends || shape.length == 1) return fold_sorted<T, Key>(p, keys.data(), nullptr, shape);
  const int bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(shape.size)));
  const SortedRows<Key> sorted = sort_rows(keys.data(), lists, shape.length, bits);
  fold_sorted<T, Key>(p, sorted.keys, sorted.positions, shape);
}

template <class T>
void fold_by_key(const IndexParams& p, const RowGeometry& keyed, const Shape& shape) {
  OPSIN_CHECK(Error, shape.length < INT64_C(0xffffffff), keyed.op ? keyed.op : "index_add_", ": ",
              shape.length, " indices are too many");
  if (shape.size < INT64_C(0xffffffff)) {
    sort_and_fold<T, uint32_t>(p, keyed, shape);
  } else {
    sort_and_fold<T, uint64_t>(p, keyed, shape);
  }
}

/// A thread for each column (and part of a complex number), from the first index to the last.
template <class T>
__global__ void __launch_bounds__(kThreads)
    fold_columns(Values<T> from, Values<T> to, const int64_t* at, RowGeometry g, IndexCheck check, int parts,
                 Fold fold, bool include_self) {
  const int64_t width = g.inner * parts, n = g.outer * width;
  OPSIN_NO_UNROLL
  for (int64_t t = thread_rank(); t < n; t += thread_count()) {
    const int64_t o = t / width, i = t - o * width;
    for (int64_t c = 0; c < g.count; c += kBatch) {
      int64_t index[kBatch];
      T value[kBatch][1];
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (c + j >= g.count) continue;
        const int64_t row = o * g.count + c + j;
        index[j] = at[row * g.inner + i / parts];
        from.get(value[j], row * width + i);
      }
      OPSIN_UNROLL
      for (int j = 0; j < kBatch; ++j) {
        if (c + j >= g.count) continue;
        const int64_t place = check(index[j]);
        if (place < 0) continue;
        const int64_t target = (o * g.size + place) * width + i;
        T sum[1] = {value[j][0]};
        if (include_self) {
          to.get(sum, target);
          sum[0] = combine(fold, sum[0], value[j][0]);
        }
        to.set(sum, target);
      }
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
  const Shape shape{g.outer, g.size, g.count, g.inner * (is_complex(p.dtype) ? 2 : 1), /*by_row=*/false};
  dispatch_compute(p.dtype, [&]<class T>() { fold_by_key<T>(p, keyed, shape); });
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
  // Rows of single elements are sorted one by one, which is less work than all together.
  const bool by_row = g.inner == 1 && g.outer > 1;
  const Shape shape = by_row ? Shape{g.outer, g.size, g.count, parts, true}
                             : Shape{1, g.outer * g.size * g.inner, n, parts, false};
  dispatch_compute(p.dtype, [&]<class T>() {
    if (!by_column) return fold_by_key<T>(p, g, shape);
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
