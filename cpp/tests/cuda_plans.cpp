// Makes the cuDNN plans of many convolutions for devices that are not there, and lists what has none.
//
//   opsin_cuda_plans [--only TEXT] [--dtype NAME] [--verbose] PROPERTIES.json...
//
// Runs without a driver: cuDNN only needs some libcuda.so.1 to load (cpp/cmake/make_driver_stub.py). Exits
// with 1 if a convolution has no plan at all.
#include <chrono>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "cuda/nvidia/cudnn_conv.h"

namespace opsin::cuda::cudnn {
namespace {

struct Layer {
  std::string name;
  cpu::ConvGeometry g;
};

struct Options {
  int64_t stride = 1, pad = 0, dilation = 1, groups = 1, pad_end = -1;
};

/// A layer over the last axes of [depth, height, width]; sizes and kernel give the number of axes.
Layer layer(const std::string& name, int64_t batch, int64_t in, int64_t out, const std::vector<int64_t>& size,
            const std::vector<int64_t>& kernel, Options o = {}) {
  Layer l{name, {}};
  cpu::ConvGeometry& g = l.g;
  g.spatial = static_cast<int>(size.size());
  g.batch = batch;
  g.in_channels = in;
  g.out_channels = out;
  g.groups = o.groups;
  for (size_t i = 0; i < size.size(); ++i) {
    const size_t axis = 3 - size.size() + i;
    g.in[axis] = size[i];
    g.kernel[axis] = kernel[i];
    g.stride[axis] = o.stride;
    g.dilation[axis] = o.dilation;
    g.pad_begin[axis] = o.pad;
    g.pad_end[axis] = o.pad_end < 0 ? o.pad : o.pad_end;
    g.out[axis] =
        (size[i] + g.pad_begin[axis] + g.pad_end[axis] - o.dilation * (kernel[i] - 1) - 1) / o.stride + 1;
  }
  return l;
}

/// The table of tests/ops/test_conv.py over n axes.
void add_test_table(std::vector<Layer>& layers, size_t n) {
  const std::vector<int64_t> sizes[] = {{9}, {6, 5}, {5, 4, 4}}, kernels[] = {{3}, {3, 2}, {3, 2, 3}};
  const auto &size = sizes[n - 1], &kernel = kernels[n - 1];
  const std::vector<int64_t> ones(n, 1), threes(n, 3);
  const std::string prefix = "table" + std::to_string(n) + "d/";
  const auto add = [&](const char* name, int64_t batch, int64_t in, int64_t out, const auto& k, Options o) {
    layers.push_back(layer(prefix + name, batch, in, out, size, k, o));
  };
  add("plain", 2, 4, 6, kernel, {});
  add("strided", 2, 4, 6, kernel, {.stride = 2, .pad = 1});
  add("same", 2, 4, 6, threes, {.pad = 1});
  add("same_even", 2, 4, 6, kernel, {.pad = 0, .pad_end = 1});
  add("same_dilated", 2, 4, 6, threes, {.pad = 2, .dilation = 2});
  add("stride", 2, 4, 6, kernel, {.stride = 2});
  add("padded", 2, 4, 6, kernel, {.pad = 2});
  add("groups", 2, 4, 6, kernel, {.groups = 2});
  add("depthwise", 2, 4, 4, kernel, {.pad = 1, .groups = 4});
  add("multiplier", 2, 4, 8, kernel, {.stride = 2, .pad = 1, .groups = 4});
  add("pointwise", 2, 4, 6, ones, {});
  add("pointwise_strided", 2, 4, 6, ones, {.stride = 2});
  add("whole_input", 2, 4, 6, size, {});
  add("wide_padding", 1, 1, 1, kernel, {.pad = 2});
  add("odd_channels", 1, 3, 17, kernel, {});
}

void add_resnets(std::vector<Layer>& layers) {
  constexpr int64_t n = 32;
  layers.push_back(layer("resnet/stem", n, 3, 64, {224, 224}, {7, 7}, {.stride = 2, .pad = 3}));
  int64_t width = 64, size = 56;
  for (int stage = 0; stage < 4; ++stage, width *= 2) {
    const std::string name = "resnet/" + std::to_string(stage) + "/";
    const auto add = [&](const char* what, int64_t in, int64_t out, int64_t at, int64_t k, Options o) {
      layers.push_back(layer(name + what, n, in, out, {at, at}, {k, k}, o));
    };
    const int64_t before = stage == 0 ? 64 : width * 2;
    const int64_t at = stage == 0 ? size : size * 2;
    add("reduce_first", before, width, at, 1, {});
    add("3x3", width, width, size, 3, {.pad = 1});
    add("expand", width, width * 4, size, 1, {});
    add("reduce", width * 4, width, size, 1, {});
    if (stage > 0) {
      add("3x3_strided", width, width, at, 3, {.stride = 2, .pad = 1});
      add("basic_strided", width / 2, width, at, 3, {.stride = 2, .pad = 1});
      add("basic_shortcut", width / 2, width, at, 1, {.stride = 2});
    }
    add("shortcut", before, width * 4, at, 1, {.stride = stage == 0 ? 1 : 2});
    size /= 2;
  }
}

void add_mobilenet(std::vector<Layer>& layers) {
  constexpr int64_t n = 32;
  const auto add = [&](const std::string& what, int64_t in, int64_t out, int64_t at, int64_t k, Options o) {
    layers.push_back(layer("mobilenet/" + what, n, in, out, {at, at}, {k, k}, o));
  };
  add("stem", 3, 32, 224, 3, {.stride = 2, .pad = 1});
  struct Block {
    int64_t in, out, expand, stride, size;
  };
  for (const Block& b : {Block{32, 16, 1, 1, 112}, Block{16, 24, 6, 2, 112}, Block{24, 24, 6, 1, 56},
                         Block{24, 32, 6, 2, 56}, Block{32, 64, 6, 2, 28}, Block{64, 96, 6, 1, 14},
                         Block{96, 160, 6, 2, 14}, Block{160, 320, 6, 1, 7}}) {
    const int64_t hidden = b.in * b.expand;
    const std::string name = std::to_string(b.in) + "_" + std::to_string(b.stride) + "/";
    if (b.expand != 1) add(name + "expand", b.in, hidden, b.size, 1, {});
    add(name + "depthwise", hidden, hidden, b.size, 3, {.stride = b.stride, .pad = 1, .groups = hidden});
    add(name + "project", hidden, b.out, b.size / b.stride, 1, {});
  }
  add("head", 320, 1280, 7, 1, {});
}

void add_others(std::vector<Layer>& layers) {
  const auto add = [&](const char* name, int64_t n, int64_t in, int64_t out, int64_t at, int64_t k,
                       Options o) { layers.push_back(layer(name, n, in, out, {at, at}, {k, k}, o)); };
  add("vgg/1", 16, 3, 64, 224, 3, {.pad = 1});
  add("vgg/2", 16, 64, 64, 224, 3, {.pad = 1});
  add("vgg/3", 16, 128, 128, 112, 3, {.pad = 1});
  add("vgg/4", 16, 256, 256, 56, 3, {.pad = 1});
  add("vgg/5", 16, 512, 512, 28, 3, {.pad = 1});
  add("vgg/6", 16, 512, 512, 14, 3, {.pad = 1});
  add("unet/in", 2, 1, 64, 572, 3, {});
  add("unet/down", 2, 64, 128, 284, 3, {});
  add("unet/bottom", 2, 512, 1024, 32, 3, {});
  // A transposed convolution is the gradient of this one.
  add("unet/up", 2, 512, 1024, 56, 2, {.stride = 2});
  add("unet/decode", 2, 1024, 512, 56, 3, {});
  add("unet/out", 2, 64, 2, 388, 1, {});
  add("resnext/3x3", 32, 128, 128, 56, 3, {.pad = 1, .groups = 32});
  add("convnext/7x7", 32, 96, 96, 56, 7, {.pad = 3, .groups = 96});
  add("deeplab/aspp", 4, 2048, 256, 33, 3, {.pad = 18, .dilation = 18});
  add("vit/patches", 32, 3, 768, 224, 16, {.stride = 16});
  add("digits/1", 64, 1, 16, 8, 3, {.pad = 1});
  layers.push_back(layer("unet3d/in", 1, 1, 32, {64, 64, 64}, {3, 3, 3}, {.pad = 1}));
  layers.push_back(layer("unet3d/mid", 1, 64, 64, {32, 32, 32}, {3, 3, 3}, {.pad = 1}));
  layers.push_back(layer("r3d/strided", 4, 64, 128, {8, 56, 56}, {3, 3, 3}, {.stride = 2, .pad = 1}));
  layers.push_back(layer("conv1d/wide", 8, 64, 64, {512}, {3}, {.pad = 1}));
}

struct Arguments {
  std::string only, dtype;
  bool verbose = false;
  std::vector<std::string> devices;
};

Arguments parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    if (!std::strcmp(argv[i], "--only") && i + 1 < argc) {
      a.only = argv[++i];
    } else if (!std::strcmp(argv[i], "--dtype") && i + 1 < argc) {
      a.dtype = argv[++i];
    } else if (!std::strcmp(argv[i], "--verbose")) {
      a.verbose = true;
    } else {
      a.devices.push_back(argv[i]);
    }
  }
  return a;
}

std::string read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Totals {
  int plans = 0, unfused = 0, failed = 0;
  int64_t workspace = 0;
};

/// Whether the problem has a plan; what is wrong otherwise is left in `why`.
bool plan(const ConvProblem& problem, const Target& target, Totals& totals, std::string& why) {
  try {
    std::vector<Plan> plans;
    const Graph graph = make_graph(problem, target);
    if (PlanSearch(target, graph, engine_filter(problem)).next(plans)) {
      ++totals.plans;
      totals.workspace = std::max(totals.workspace, plans[0].workspace);
      why = describe(plans[0]);
      return true;
    }
    why = "no engine";
  } catch (const std::exception& error) {
    why = error.what();
  }
  return false;
}

/// What may be asked for after the product: nothing, a bias, or all there is.
enum class Epilogue { kNone, kBias, kAll };

void run_one(const Arguments& arguments, const std::string& where, const Target& target,
             const ConvProblem& problem, Totals& totals) {
  std::string why;
  const auto start = std::chrono::steady_clock::now();
  const bool found = plan(problem, target, totals, why);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (!found) ++(problem.bias ? totals.unfused : totals.failed);
  if (found && !arguments.verbose) return;
  std::printf("%s: %s: %s: %s (%.2f s)\n",
              found          ? "ok"
              : problem.bias ? "not fused"
                             : "no plan",
              where.c_str(), describe(problem).c_str(), why.c_str(), took.count());
}

void run_layer(const Arguments& arguments, const std::string& where, const Target& target, const Layer& layer,
               DType dtype, bool tf32, Totals& totals) {
  for (const auto product :
       {ConvProduct::kForward, ConvProduct::kBackwardInput, ConvProduct::kBackwardWeight}) {
    for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kBias, Epilogue::kAll}) {
      if (epilogue != Epilogue::kNone && product != ConvProduct::kForward) continue;
      ConvProblem problem;
      const bool is_weight = product == ConvProduct::kBackwardWeight;
      if (!make_problem(product, is_weight ? EvenPadding(layer.g).geometry : layer.g, dtype, problem))
        continue;
      problem.alignment = kMostAlignment;
      problem.bias = epilogue != Epilogue::kNone;
      problem.residual = problem.relu = epilogue == Epilogue::kAll;
      problem.tf32 = tf32;
      problem.deterministic = 1;
      run_one(arguments, where, target, problem, totals);
    }
  }
}

void run(const Arguments& arguments, const std::string& device, const std::vector<Layer>& layers,
         Totals& totals) {
  const Target target(read(device));
  const std::string name_of_device = device.substr(device.rfind('/') + 1);
  for (const Layer& l : layers) {
    if (l.name.find(arguments.only) == std::string::npos) continue;
    for (const DType dtype : {kFloat32, kFloat16, kBFloat16, kFloat64}) {
      if (!arguments.dtype.empty() && arguments.dtype != name(dtype)) continue;
      for (const bool tf32 : {true, false}) {
        if (tf32 && dtype != kFloat32) continue;
        run_layer(arguments, name_of_device + ": " + l.name, target, l, dtype, tf32, totals);
      }
    }
  }
}

int main(int argc, char** argv) {
  const Arguments arguments = parse(argc, argv);
  if (arguments.devices.empty()) {
    std::fprintf(stderr,
                 "usage: opsin_cuda_plans [--only TEXT] [--dtype NAME] [--verbose] PROPERTIES.json...\n");
    return 2;
  }
  std::vector<Layer> layers;
  for (size_t n = 1; n <= 3; ++n) add_test_table(layers, n);
  add_resnets(layers);
  add_mobilenet(layers);
  add_others(layers);
  Totals totals;
  try {
    check_version();
    for (const std::string& device : arguments.devices) run(arguments, device, layers, totals);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "opsin_cuda_plans: %s\n", error.what());
    return 1;
  }
  std::printf("%d plans, %d without a plan, %d without a fused plan, largest workspace %.1f MiB\n",
              totals.plans, totals.failed, totals.unfused, static_cast<double>(totals.workspace) / (1 << 20));
  return totals.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace opsin::cuda::cudnn

int main(int argc, char** argv) { return opsin::cuda::cudnn::main(argc, argv); }
