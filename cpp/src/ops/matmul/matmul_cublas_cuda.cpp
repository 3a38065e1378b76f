// Matrix products by cuBLASLt. Its matrices are column-major, so C = A B is asked for as C^T = B^T A^T, the
// same memory; an operand that has no unit stride is copied first. What has no algorithm runs with the
// engine's own kernel and is counted.
#include "matmul_cuda.h"

#include <array>
#include <bit>
#include <mutex>
#include <optional>

#include <cublasLt.h>

#include <opsin/error.h>

#include "core/backend.h"
#include "core/backend_settings.h"
#include "cuda/current_stream.h"
#include "cuda/lru_cache.h"
#include "cuda/workspace.h"

namespace opsin {
namespace cuda {
namespace {

/// Products whose algorithm a thread keeps.
constexpr size_t kProducts = 4096;
constexpr uint64_t kMaxWorkspace = uint64_t{32} << 20;
/// As many as an index of eight bits can name.
constexpr size_t kDevices = 128;
/// The alignment beyond which no algorithm asks for more.
constexpr uintptr_t kMostAlignment = 256;

void check(cublasStatus_t status, const char* call) {
  OPSIN_CHECK(Error, status == CUBLAS_STATUS_SUCCESS, "cuBLASLt: ", call, ": ",
              cublasLtGetStatusString(status));
}

/// One for each device, for all threads, as long as the process lives.
cublasLtHandle_t handle(int device) {
  static std::array<cublasLtHandle_t, kDevices> handles{};
  static std::array<std::once_flag, kDevices> made;
  const auto at = static_cast<size_t>(device);
  std::call_once(made[at], [&] { check(cublasLtCreate(&handles[at]), "cublasLtCreate"); });
  return handles[at];
}

/// One matrix of a product, as cuBLASLt sees the memory of a row-major one.
struct Operand {
  const void* data;
  int64_t leading, batch;
  bool transposed;
};

/// Everything an algorithm depends on: the key of the cache.
struct Product {
  int64_t m, n, k, batches;
  int64_t a_leading, b_leading, c_leading, a_batch, b_batch, c_batch;
  int32_t dtype, a_transposed, b_transposed, bias, accumulate, tf32, device, alignment;

  bool operator==(const Product&) const = default;
};

/// A product ready to run; plain memory in cuBLASLt's own terms.
struct Algorithm {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, c;
  cublasLtMatmulAlgo_t algo;
  size_t workspace;
};

/// The operand for rows x columns elements, or nothing if no stride is 1. Strides of a size of 1 say nothing.
std::optional<Operand> as_operand(const void* data, int64_t rows, int64_t columns, int64_t row_stride,
                                  int64_t column_stride, int64_t batch) {
  if (columns == 1 || column_stride == 1) {
    const int64_t leading = rows == 1 ? columns : row_stride;
    if (leading >= columns) return Operand{data, leading, batch, false};
  }
  if (rows == 1 || row_stride == 1) {
    const int64_t leading = columns == 1 ? rows : column_stride;
    if (leading >= rows) return Operand{data, leading, batch, true};
  }
  return std::nullopt;
}

/// The same, over a copy of the matrices where it takes one.
Operand make_operand(std::optional<Workspace>& copy, DType dtype, int64_t batches, const void* data,
                     int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                     int64_t batch) {
  if (const auto operand = as_operand(data, rows, columns, row_stride, column_stride, batch)) return *operand;
  const int64_t copies = batch == 0 ? 1 : batches, size = rows * columns;
  copy.emplace(copies * size * static_cast<int64_t>(item_size(dtype)));
  pack_matrices(data, copies, rows, columns, batch, row_stride, column_stride, item_size(dtype), copy->get());
  return {copy->get(), columns, batch == 0 ? 0 : size, false};
}

struct Types {
  cudaDataType_t data, scale;
  cublasComputeType_t compute;
};
Types types_of(DType dtype, bool tf32) {
  if (dtype == kFloat64) return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
  if (dtype == kFloat32) {
    return {CUDA_R_32F, CUDA_R_32F, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F};
  }
  return {dtype == kFloat16 ? CUDA_R_16F : CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
}

template <class T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name, T value) {
  check(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value),
        "cublasLtMatmulDescSetAttribute");
}

void make_layout(cublasLtMatrixLayoutOpaque_t& layout, cudaDataType_t type, int64_t rows, int64_t columns,
                 int64_t leading, int64_t batches, int64_t batch) {
  check(cublasLtMatrixLayoutInit(&layout, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                 leading),
        "cublasLtMatrixLayoutInit");
  const auto count = static_cast<int32_t>(batches);
  check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
        "cublasLtMatrixLayoutSetAttribute");
  check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch,
                                         sizeof batch),
        "cublasLtMatrixLayoutSetAttribute");
}

/// The best algorithm by cuBLASLt's heuristics, or nothing.
std::optional<Algorithm> find_algorithm(const Product& p, const void* bias) {
  const auto dtype = static_cast<DType>(p.dtype);
  const Types types = types_of(dtype, p.tf32 != 0);
  Algorithm found;
  check(cublasLtMatmulDescInit(&found.operation, types.compute, types.scale), "cublasLtMatmulDescInit");
  // cuBLASLt's first operand is B^T, its second A^T.
  set(&found.operation, CUBLASLT_MATMUL_DESC_TRANSA,
      static_cast<int32_t>(p.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
  set(&found.operation, CUBLASLT_MATMUL_DESC_TRANSB,
      static_cast<int32_t>(p.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N));
  if (p.bias) {
    set(&found.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(CUBLASLT_EPILOGUE_BIAS));
    set(&found.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  make_layout(found.a, types.data, p.b_transposed ? p.k : p.n, p.b_transposed ? p.n : p.k, p.b_leading,
              p.batches, p.b_batch);
  make_layout(found.b, types.data, p.a_transposed ? p.m : p.k, p.a_transposed ? p.k : p.m, p.a_leading,
              p.batches, p.a_batch);
  make_layout(found.c, types.data, p.n, p.m, p.c_leading, p.batches, p.c_batch);

  cublasLtMatmulPreferenceOpaque_t preference;
  check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t name, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMaxWorkspace);
  // Parts of a sum never go through 16 bits.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  for (const auto name :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(name, static_cast<uint32_t>(p.alignment));
  }
  cublasLtMatmulHeuristicResult_t result;
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle(p.device), &found.operation, &found.a, &found.b, &found.c,
                                     &found.c, &preference, 1, &result, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0 || result.state != CUBLAS_STATUS_SUCCESS)
    return std::nullopt;
  found.algo = result.algo;
  found.workspace = result.workspaceSize;
  return found;
}

/// Whether cuBLASLt has an algorithm; then it is launched.
bool run(DType dtype, const MatmulParams& p) {
  thread_local LruCache<Product, std::optional<Algorithm>> known(kProducts);
  if (p.k == 0 || p.c_row < p.n || p.batch > INT32_MAX) return false;
  before_launch();
  std::optional<Workspace> a_copy, b_copy;
  const Operand a = make_operand(a_copy, dtype, p.batch, p.a, p.m, p.k, p.a_row, p.a_col, p.a_batch);
  const Operand b = make_operand(b_copy, dtype, p.batch, p.b, p.k, p.n, p.b_row, p.b_col, p.b_batch);
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(a.data) | reinterpret_cast<uintptr_t>(b.data) |
                              reinterpret_cast<uintptr_t>(p.c) | reinterpret_cast<uintptr_t>(p.bias) |
                              kMostAlignment;
  const Product product{p.m,
                        p.n,
                        p.k,
                        p.batch,
                        a.leading,
                        b.leading,
                        p.c_row,
                        a.batch,
                        b.batch,
                        p.batch == 1 ? 0 : p.c_batch,
                        static_cast<int32_t>(dtype),
                        a.transposed,
                        b.transposed,
                        p.bias != nullptr,
                        p.accumulate,
                        dtype == kFloat32 && allow_tf32_matmul(),
                        active_device(),
                        int32_t{1} << std::countr_zero(addresses)};
  std::optional<Algorithm>* entry = known.find(product);
  if (!entry) [[unlikely]]
    entry = &known.insert(product, find_algorithm(product, p.bias));
  if (!*entry) return false;
  Algorithm& algorithm = **entry;
  if (p.bias) set(&algorithm.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
  const Workspace workspace(static_cast<int64_t>(algorithm.workspace));
  const double one64 = 1, beta64 = p.accumulate;
  const float one32 = 1, beta32 = p.accumulate;
  const bool wide = dtype == kFloat64;
  check(cublasLtMatmul(handle(product.device), &algorithm.operation,
                       wide ? static_cast<const void*>(&one64) : &one32, b.data, &algorithm.a, a.data,
                       &algorithm.b, wide ? static_cast<const void*>(&beta64) : &beta32, p.c, &algorithm.c,
                       p.c, &algorithm.c, &algorithm.algo, workspace.get(), algorithm.workspace,
                       static_cast<cudaStream_t>(current_stream())),
        "cublasLtMatmul");
  return true;
}

template <class T>
void product(const MatmulParams& p) {
  constexpr DType kType = dtype_of<T>;
  if (run(kType, p)) return;
  if (p.k != 0) {
    count_fallback(detail::concat("matmul ", name(kType), " [", p.batch, ", ", p.m, ", ", p.k, "] x [", p.k,
                                  ", ", p.n, "] strides ", p.a_row, " ", p.a_col, ", ", p.b_row, " ", p.b_col,
                                  p.bias ? " + bias" : ""));
  }
  matmul(kType, p);
}

}  // namespace
}  // namespace cuda

void register_matmul_cublas_cuda() {
  matmul_forward.set(DeviceType::kCUDA, kFloat16, cuda::product<float16>);
  matmul_forward.set(DeviceType::kCUDA, kBFloat16, cuda::product<bfloat16>);
  matmul_forward.set(DeviceType::kCUDA, kFloat32, cuda::product<float>);
  matmul_forward.set(DeviceType::kCUDA, kFloat64, cuda::product<double>);
}

}  // namespace opsin
