// A training step by hand, small enough for an emulator: `opsin_smoke ISA` is run under qemu with a processor
// that has no more than that instruction set. Exit 77: the emulator does not offer it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <opsin/opsin.h>

#include "cpu/isa.h"

namespace {

constexpr int kSkip = 77;

/// Values in [-1, 1] that repeat on every machine.
opsin::Tensor pattern(std::initializer_list<int64_t> size, uint32_t seed) {
  const opsin::Tensor x = opsin::zeros(size);
  float* data = x.mutable_data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) {
    seed = seed * 1664525u + 1013904223u;
    data[i] = static_cast<float>(seed >> 8) / 8388608.0f - 1.0f;
  }
  return x;
}

/// The loss of a convolution and a linear layer.
opsin::Tensor loss(const opsin::Tensor& x, const opsin::Tensor& weight, const opsin::Tensor& linear) {
  const int64_t padding[] = {1, 1};
  const int64_t flat[] = {2, 8 * 9 * 9};
  const opsin::Tensor y = opsin::relu(opsin::conv2d(x, weight, {}, {}, padding));
  const opsin::Tensor z = opsin::matmul(opsin::reshape(y, flat), linear);
  return opsin::sum(opsin::mul(z, z));
}

}  // namespace

int main(int argc, char** argv) {
  const char* isa = opsin::cpu::isa_name(opsin::cpu::isa());
  if (argc > 1 && std::strcmp(isa, argv[1]) != 0) {
    std::printf("smoke: expected %s, this processor has %s\n", argv[1], isa);
    return kSkip;
  }
  const opsin::Tensor x = pattern({2, 3, 9, 9}, 1);
  const opsin::Tensor weight = pattern({8, 3, 3, 3}, 2);
  const opsin::Tensor linear = pattern({8 * 9 * 9, 10}, 3);
  weight.set_requires_grad();
  linear.set_requires_grad();
  const opsin::Tensor value = loss(x, weight, linear);
  value.backward();

  // One weight moved: the loss follows its gradient.
  constexpr float kStep = 1e-2f;
  const float slope = weight.grad().data<float>()[0];
  float after[2];
  for (int side = 0; side < 2; ++side) {
    const opsin::Tensor moved = pattern({8, 3, 3, 3}, 2);
    moved.mutable_data<float>()[0] += side == 0 ? -kStep : kStep;
    after[side] = loss(x, moved, linear).item<float>();
  }
  const float measured = (after[1] - after[0]) / (2 * kStep);
  std::printf("smoke: %s, loss %.6g, slope %.5g, measured %.5g\n", isa,
              static_cast<double>(value.item<float>()), static_cast<double>(slope),
              static_cast<double>(measured));
  return std::fabs(slope - measured) < 0.02f * std::fabs(slope) + 1e-3f ? EXIT_SUCCESS : EXIT_FAILURE;
}
