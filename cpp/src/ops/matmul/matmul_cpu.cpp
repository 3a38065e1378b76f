// Floating point goes to the engine's own kernels; integers and complex numbers, which vision rarely
// multiplies, to Eigen's.
#include "matmul_kernels.h"

#include <Eigen/Core>
#include <complex>

namespace opsin {

namespace {

template <class T>
void eigen_matmul(const MatmulParams& p) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Stride = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  for (int64_t i = 0; i < p.batch; ++i) {
    const Eigen::Map<const Matrix, 0, Stride> a(static_cast<const T*>(p.a) + i * p.a_batch, p.m, p.k,
                                                Stride(p.a_row, p.a_col));
    const Eigen::Map<const Matrix, 0, Stride> b(static_cast<const T*>(p.b) + i * p.b_batch, p.k, p.n,
                                                Stride(p.b_row, p.b_col));
    Eigen::Map<Matrix, 0, Stride> c(static_cast<T*>(p.c) + i * p.c_batch, p.m, p.n, Stride(p.c_row, 1));
    c.noalias() = a * b;
    if (p.bias)
      c.rowwise() +=
          Eigen::Map<const Eigen::Matrix<T, 1, Eigen::Dynamic>>(static_cast<const T*>(p.bias), p.n);
  }
}

}  // namespace

void register_matmul_cpu() {
  const auto set = [](DType dtype, void (*kernel)(const MatmulParams&)) {
    matmul_forward.set(DeviceType::kCPU, dtype, kernel);
  };
  set(kFloat32, cpu::gemm_f32);
  set(kFloat64, cpu::gemm_f64);
  set(kFloat16, cpu::gemm_f16);
  set(kBFloat16, cpu::gemm_bf16);
  set(kUInt8, eigen_matmul<uint8_t>);
  set(kInt8, eigen_matmul<int8_t>);
  set(kInt16, eigen_matmul<int16_t>);
  set(kInt32, eigen_matmul<int32_t>);
  set(kInt64, eigen_matmul<int64_t>);
  set(kComplex64, eigen_matmul<std::complex<float>>);
  set(kComplex128, eigen_matmul<std::complex<double>>);
}

}  // namespace opsin
