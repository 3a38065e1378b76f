// The backend API of cuDNN 9: owned descriptors, graphs of operations, and the search for an execution plan.
// Plans can also be made for a device that is not there, from its properties.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <cudnn.h>

#include <opsin/dtype.h>
#include <opsin/shape.h>

namespace opsin::cuda::cudnn {

/// Raises an Error with cuDNN's own text unless `status` is success. `call` says what failed.
void check(cudnnStatus_t status, const char* call);

/// Raises an Error if the loaded library is older than the one that the plug-in is made for.
void check_version();

class Descriptor;

namespace detail {
template <class T>
struct AttributeType;
#define OPSIN_CUDNN_TYPE(T, type)                              \
  template <>                                                  \
  struct AttributeType<T> {                                    \
    static constexpr cudnnBackendAttributeType_t value = type; \
  }
OPSIN_CUDNN_TYPE(cudnnHandle_t, CUDNN_TYPE_HANDLE);
OPSIN_CUDNN_TYPE(cudnnDataType_t, CUDNN_TYPE_DATA_TYPE);
OPSIN_CUDNN_TYPE(bool, CUDNN_TYPE_BOOLEAN);
OPSIN_CUDNN_TYPE(int64_t, CUDNN_TYPE_INT64);
OPSIN_CUDNN_TYPE(float, CUDNN_TYPE_FLOAT);
OPSIN_CUDNN_TYPE(double, CUDNN_TYPE_DOUBLE);
OPSIN_CUDNN_TYPE(void*, CUDNN_TYPE_VOID_PTR);
OPSIN_CUDNN_TYPE(char, CUDNN_TYPE_CHAR);
OPSIN_CUDNN_TYPE(cudnnConvolutionMode_t, CUDNN_TYPE_CONVOLUTION_MODE);
OPSIN_CUDNN_TYPE(cudnnBackendHeurMode_t, CUDNN_TYPE_HEUR_MODE);
OPSIN_CUDNN_TYPE(cudnnBackendNumericalNote_t, CUDNN_TYPE_NUMERICAL_NOTE);
OPSIN_CUDNN_TYPE(cudnnBackendBehaviorNote_t, CUDNN_TYPE_BEHAVIOR_NOTE);
OPSIN_CUDNN_TYPE(cudnnPointwiseMode_t, CUDNN_TYPE_POINTWISE_MODE);
#undef OPSIN_CUDNN_TYPE
}  // namespace detail

/// Owns one backend descriptor.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type);
  ~Descriptor();
  Descriptor(Descriptor&& other) noexcept : raw_(std::exchange(other.raw_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(raw_, other.raw_);
    return *this;
  }

  template <class T>
  Descriptor& set(cudnnBackendAttributeName_t name, T value) {
    return set_raw(name, detail::AttributeType<T>::value, 1, &value);
  }
  template <class T>
  Descriptor& set_all(cudnnBackendAttributeName_t name, std::span<const T> values) {
    return set_raw(name, detail::AttributeType<T>::value, static_cast<int64_t>(values.size()), values.data());
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set_raw(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.raw_);
  }
  Descriptor& set_all(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values);

  /// Raises an Error where cuDNN refuses what was set.
  Descriptor& finalize(const char* what);
  /// Whether cuDNN takes what was set.
  bool try_finalize() { return cudnnBackendFinalize(raw_) == CUDNN_STATUS_SUCCESS; }

  /// Up to `capacity` values.
  template <class T>
  std::vector<T> get(cudnnBackendAttributeName_t name, size_t capacity) const {
    std::vector<T> values(capacity);
    int64_t count = 0;
    check(cudnnBackendGetAttribute(raw_, name, detail::AttributeType<T>::value,
                                   static_cast<int64_t>(capacity), &count, values.data()),
          "cudnnBackendGetAttribute");
    values.resize(static_cast<size_t>(count) < capacity ? static_cast<size_t>(count) : capacity);
    return values;
  }
  cudnnBackendDescriptor_t raw() const { return raw_; }

 private:
  Descriptor& set_raw(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                      const void* values);

  cudnnBackendDescriptor_t raw_ = nullptr;
};

/// The device that plans are made for.
class Target {
 public:
  /// The device of a handle.
  explicit Target(cudnnHandle_t handle) : handle_(handle) {}
  /// A device that need not be there, from cuDNN's JSON of its properties. Plans for it cannot run here.
  explicit Target(std::string_view properties_json);

 private:
  friend class Graph;
  friend class PlanSearch;
  cudnnHandle_t handle_ = nullptr;
  std::vector<Descriptor> properties_;  ///< One or none.
};

cudnnDataType_t data_type(DType dtype);

/// A tensor of a graph. Virtual ones exist only between two operations.
Descriptor make_tensor(int64_t uid, cudnnDataType_t type, IntSpan sizes, IntSpan strides, int64_t alignment,
                       bool is_virtual = false);

/// y = mode(x), or mode(x, b) with b broadcast; computed in `compute`.
Descriptor make_pointwise(cudnnPointwiseMode_t mode, cudnnDataType_t compute, const Descriptor& x,
                          const Descriptor* b, const Descriptor& y);

/// Operations that run as one. Raises an Error where cuDNN refuses the graph as such.
class Graph {
 public:
  Graph(const Target& target, std::vector<Descriptor> tensors, std::vector<Descriptor> operations);
  const Descriptor& descriptor() const { return graph_; }

 private:
  // What the operations refer to.
  std::vector<Descriptor> tensors_, operations_;
  Descriptor graph_{CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR};
};

/// Which engines may run a graph.
struct EngineFilter {
  bool deterministic = true;
  /// float32 operands reach tensor cores rounded to TF32.
  bool tensor_cores = true;
  /// Engines without tensor cores come last, whatever the heuristics say.
  bool prefer_tensor_cores = false;
  /// In bytes; engines that want more are passed over.
  int64_t max_workspace = int64_t{1} << 30;
};

/// How to run a graph.
struct Plan {
  Descriptor config, plan;
  int64_t workspace;
};

/// For messages: the engine's number and what it says about itself.
std::string describe(const Plan& plan);

/// Walks through the plans for a graph, the best by cuDNN's heuristics first: mode A, then mode B, then the
/// fallback engines. Winograd, FFT, 16-bit sums and operands are passed over: results keep the accuracy of
/// plain sums.
class PlanSearch {
 public:
  PlanSearch(const Target& target, const Graph& graph, const EngineFilter& filter)
      : target_(target), graph_(graph), filter_(filter) {}
  /// Appends the next plan to `plans`; false when there is none.
  bool next(std::vector<Plan>& plans);

 private:
  bool admits(const Descriptor& config) const;
  void refill();

  const Target& target_;
  const Graph& graph_;
  EngineFilter filter_;
  /// The second pass takes what the first one left for the sake of prefer_tensor_cores.
  int pass_ = 0;
  size_t mode_ = 0, at_ = 0;
  std::vector<Descriptor> configs_;
};

/// Runs a plan on the stream of `handle`. `uids` and `pointers` are those of the tensors that are not
/// virtual.
void execute(cudnnHandle_t handle, const Plan& plan, std::span<const int64_t> uids,
             std::span<void* const> pointers, void* workspace);

}  // namespace opsin::cuda::cudnn
