// Blocks of a head on the CPU: their sizes, their operands laid out for the kernels of GEMM, and the products
// of tiles.
#pragma once

#include "attention_kernels.h"

#include <algorithm>
#include <cstring>

#include <opsin/dtype.h>

#include "cpu/kernels/gemm_table.h"
#include "cpu/scratch.h"

namespace opsin::attention {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Queries or keys in blocks of nearly equal size, a multiple of 16; they depend on the shape alone.
struct Blocks {
  int64_t total, size, count;

  Blocks(int64_t total_, int64_t most)
      : total(total_),
        size(round_up(ceil_div(total_, ceil_div(total_, most)), 16)),
        count(ceil_div(total_, size)) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t length(int64_t i) const { return std::min(size, total - i * size); }
};

/// A tile of scores has as many queries and keys, for 4 or 8 bytes each.
template <class T>
constexpr int64_t kMostQueries = 512 / sizeof(T);
template <class T>
constexpr int64_t kMostKeys = 1024 / sizeof(T);

/// Panels of a matrix that are held at once, in bytes.
constexpr int64_t kPanelBytes = int64_t{2} << 20;

/// What reads operands of the storage dtype, and what multiplies panels.
struct Gemm {
  const cpu::GemmKernels& stored;
  const cpu::GemmKernels& computed;

  static Gemm of(DType dtype) {
    const cpu::GemmTable& table = OPSIN_ISA_SELECT(cpu::gemm_table);
    if (dtype == kFloat64) return {table.f64, table.f64};
    return {dtype == kFloat16 ? table.f16 : dtype == kBFloat16 ? table.bf16 : table.f32, table.f32};
  }
  /// Rows of a panel of A: evenly filled tiles.
  int64_t panel_rows(int64_t rows) const { return ceil_div(rows, ceil_div(rows, computed.mr)); }
};

/// Lays out `lanes` lanes of `depth` steps in panels of `height` lanes, `step` apart.
inline void pack(const cpu::GemmKernels& kernels, const char* in, int64_t lane_stride, int64_t depth_stride,
                 int64_t lanes, int64_t depth, int64_t height, int64_t step, char* out) {
  for (int64_t i = 0; i < lanes; i += height) {
    kernels.pack({in + i * lane_stride * kernels.storage, lane_stride, depth_stride,
                  std::min(height, lanes - i), depth, out, step});
    out += step * depth * kernels.packed;
  }
}

/// The blocks of rows of a matrix as operands of products, packed when they are asked for and kept as long as
/// there is room.
class Panels {
 public:
  enum Role : uint8_t {
    kLeft,   ///< A: the rows of the block.
    kRight,  ///< B^T: the rows of the block.
    kDeep    ///< B: the rows of the block are steps of k.
  };

  /// With `wanted` false, nothing is allocated.
  Panels(const Gemm& gemm, Role role, const Blocks& blocks, int64_t columns, bool wanted = true)
      : gemm_(gemm),
        role_(role),
        blocks_(blocks),
        columns_(columns),
        bytes_(block_bytes()),
        slots_(wanted ? std::clamp<int64_t>(kPanelBytes / bytes_, 1, blocks.count) : 0),
        memory_(slots_ * bytes_),
        held_(slots_) {
    forget();
  }

  /// Another matrix from now on.
  void set(const void* data, int64_t row, int64_t col) {
    data_ = static_cast<const char*>(data);
    row_ = row;
    col_ = col;
    forget();
  }

  /// Panels of block i; the function is called on what was packed anew.
  template <class F>
  const char* block(int64_t i, F&& finish) {
    const int64_t slot = i % slots_;
    char* out = memory_.get() + slot * bytes_;
    if (held_.get()[slot] == i) return out;
    held_.get()[slot] = i;
    const char* in = data_ + blocks_.begin(i) * row_ * gemm_.stored.storage;
    const int64_t rows = blocks_.length(i), nr = gemm_.computed.nr, mr = gemm_.computed.mr;
    if (role_ == kDeep) {
      pack(gemm_.stored, in, col_, row_, columns_, rows, nr, nr, out);
    } else if (role_ == kRight) {
      pack(gemm_.stored, in, row_, col_, rows, columns_, nr, nr, out);
    } else {
      pack(gemm_.stored, in, row_, col_, rows, columns_, gemm_.panel_rows(rows), mr, out);
    }
    finish(out, bytes_ / gemm_.computed.compute);
    return out;
  }
  const char* block(int64_t i) {
    return block(i, [](char*, int64_t) {});
  }

 private:
  int64_t block_bytes() const {
    const int64_t mr = gemm_.computed.mr, nr = gemm_.computed.nr;
    const int64_t lanes =
        role_ == kDeep ? round_up(columns_, nr) : round_up(blocks_.size, role_ == kLeft ? mr : nr);
    // A pack may write 16 elements beyond its panel.
    return round_up((lanes * (role_ == kDeep ? blocks_.size : columns_) + 16) * gemm_.computed.compute, 64);
  }
  void forget() { std::fill_n(held_.get(), slots_, int64_t{-1}); }

  const Gemm& gemm_;
  Role role_;
  Blocks blocks_;
  int64_t columns_, bytes_, slots_;
  cpu::Scratch<char> memory_;
  cpu::Scratch<int64_t> held_;
  const char* data_ = nullptr;
  int64_t row_ = 0, col_ = 0;
};

/// c[m, n] = A B, or c += A B, of panels.
inline void multiply_panels(const Gemm& gemm, int64_t m, int64_t n, int64_t depth, const void* a,
                            const void* b, void* c, int64_t c_row, bool add) {
  cpu::GemmBlock g{};
  g.m = m;
  g.n = n;
  g.depth = depth;
  g.panel_rows = gemm.panel_rows(m);
  g.a = a;
  g.a_step = gemm.computed.mr;
  g.a_panel = gemm.computed.mr * depth;
  g.b = b;
  g.b_step = gemm.computed.nr;
  g.b_panel = gemm.computed.nr * depth;
  g.c = c;
  g.c_row = c_row;
  g.c_col = 1;
  g.add = add;
  gemm.computed.block(g);
}

/// c[m, n] += A^T B for a tile A [depth, m] as it lies, whose rows are `a_row` apart.
inline void add_transposed(const Gemm& gemm, int64_t m, int64_t n, int64_t depth, const void* a,
                           int64_t a_row, const void* b, void* c, int64_t c_row) {
  cpu::GemmBlock g{};
  g.m = m;
  g.n = n;
  g.depth = depth;
  g.panel_rows = gemm.panel_rows(m);
  g.a = a;
  g.a_step = a_row;
  g.a_panel = g.panel_rows;
  g.b = b;
  g.b_step = gemm.computed.nr;
  g.b_panel = gemm.computed.nr * depth;
  g.c = c;
  g.c_row = c_row;
  g.c_col = 1;
  g.add = true;
  gemm.computed.block(g);
}

inline const char* head_of(const AttentionMatrix& x, int64_t batch, int64_t head, int64_t item) {
  return static_cast<const char*>(x.data) + (batch * x.batch + head * x.head) * item;
}

/// Tiles of scores of one head after the other.
template <class T>
class Scores {
 public:
  Scores(const AttentionParams& p, const Gemm& gemm)
      : p_(p),
        gemm_(gemm),
        table_(OPSIN_ISA_SELECT(cpu::attention_table)),
        queries(p.queries, kMostQueries<T>),
        keys(p.keys, kMostKeys<T>),
        // Rows that do not fall on the same lines of the cache.
        row(round_up(queries.size, 32) + 16),
        key_panels_(gemm, Panels::kLeft, keys, p.depth),
        query_panels_(gemm, Panels::kRight, queries, p.depth),
        tile_(keys.size * row),
        words_(p.least ? row : 0),
        random_(resolve(p.random)) {}

  void set_key_head(int64_t batch, int64_t head) {
    key_panels_.set(head_of(p_.key, batch, head, gemm_.stored.storage), p_.key.row, p_.key.col);
  }
  void set_query_head(int64_t batch, int64_t head) {
    batch_ = batch;
    head_ = head;
    query_panels_.set(head_of(p_.query, batch, head, gemm_.stored.storage), p_.query.row, p_.query.col);
  }

  /// Columns of the tile of query block i: what fills whole vectors; zeros beyond the queries.
  int64_t columns(int64_t i) const { return round_up(queries.length(i), gemm_.computed.nr); }
  /// Whether no query of block i sees a key of block k.
  bool is_hidden(int64_t i, int64_t k) const {
    return p_.causal && keys.begin(k) >= queries.begin(i) + queries.length(i);
  }

  /// The tile of masked scores [keys][row].
  T* tile(int64_t i, int64_t k) {
    const char* right = query_panels_.block(
        i, [&](char* panels, int64_t count) { table_.multiply[kType](panels, count, p_.scale); });
    multiply_panels(gemm_, keys.length(k), columns(i), p_.depth, key_panels_.block(k), right, tile_.get(),
                    row, false);
    if (p_.mask_kind != AttentionMask::kNone) mask(i, k);
    if (p_.causal && keys.begin(k) + keys.length(k) > queries.begin(i) + 1) mask_later(i, k);
    return tile_.get();
  }

  /// Zeroes and scales what row `key` of key block k holds for query block i, in each of the tiles.
  template <class... Tiles>
  void drop(int64_t i, int64_t k, int64_t key, Tiles... tiles) {
    const int64_t number =
        ((batch_ * p_.heads + head_) * p_.keys + keys.begin(k) + key) * ceil_div(p_.queries, 4) +
        queries.begin(i) / 4;
    draw(random_.seed, random_.offset + static_cast<uint64_t>(number), ceil_div(queries.length(i), 4));
    (keep(queries.length(i), tiles + key * row), ...);
  }

  static constexpr int kType = sizeof(T) == 8 ? 1 : 0;

 private:
  void draw(uint64_t seed, uint64_t offset, int64_t blocks);
  void keep(int64_t count, T* values);

  void mask(int64_t i, int64_t k) {
    const bool added = p_.mask_kind == AttentionMask::kAdded;
    const int64_t item = added ? gemm_.stored.storage : 1;
    const cpu::AttentionMaskTile tile{
        tile_.get(),
        keys.length(k),
        queries.length(i),
        row,
        static_cast<const char*>(p_.mask.data) +
            (batch_ / p_.mask_inner * p_.mask.batch + batch_ % p_.mask_inner * p_.mask_inner_stride +
             head_ * p_.mask.head + queries.begin(i) * p_.mask.row + keys.begin(k) * p_.mask.col) *
                item,
        p_.mask.row,
        p_.mask.col};
    (added ? table_.add[static_cast<int>(p_.dtype)] : table_.exclude[kType])(tile);
  }
  void mask_later(int64_t i, int64_t k) {
    for (int64_t j = 0; j < keys.length(k); ++j) {
      const int64_t first = keys.begin(k) + j - queries.begin(i);
      if (first > 0)
        std::fill_n(tile_.get() + j * row, std::min(first, queries.length(i)),
                    -std::numeric_limits<T>::infinity());
    }
  }

  const AttentionParams& p_;
  const Gemm& gemm_;
  const cpu::AttentionTable& table_;

 public:
  const Blocks queries, keys;
  const int64_t row;

 private:
  Panels key_panels_, query_panels_;
  cpu::Scratch<T> tile_;
  cpu::Scratch<uint32_t> words_;
  PhiloxSeed random_;
  int64_t batch_ = 0, head_ = 0;
};

}  // namespace opsin::attention
