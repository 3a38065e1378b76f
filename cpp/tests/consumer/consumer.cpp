// Uses the installed package as an outside program does: calls, gradients, and an error caught by its class.
#include <cstdio>

#include <opsin/opsin.h>
#include <opsin/version.h>

int main() {
  const opsin::Tensor x = opsin::ones({2, 3});
  x.set_requires_grad();
  const opsin::Tensor y = opsin::sum(opsin::mul(opsin::add(x, x), x));
  y.backward();
  const float value = y.item<float>();
  const float gradient = *x.grad().data<float>();
  bool caught = false;
  try {
    opsin::add(x, opsin::ones({4, 5}));
  } catch (const opsin::ShapeError&) {
    caught = true;
  }
  std::printf("opsin %s: %g %g %d\n", OPSIN_VERSION, value, gradient, caught);
  return value == 12.0f && gradient == 4.0f && caught ? 0 : 1;
}
