// The blocks of arguments that Python packs (kernels.py), and the checks of all sizes in them: no kernel runs with
// sizes that do not go together or reads or writes beyond a tensor.

#pragma once

#include <cstdarg>
#include <cstdio>
#include <stdexcept>

#include "inference.hpp"
#include "training.hpp"
#include "transforms.hpp"
#include "weight_gradients.hpp"

namespace {

struct Error {
  char message[256];
};

__attribute__((format(printf, 2, 3))) inline void check(bool holds, const char* format, ...) {
  if (holds) return;
  Error error;
  va_list values;
  va_start(values, format);
  std::vsnprintf(error.message, sizeof error.message, format, values);
  va_end(values);
  throw error;
}

// Runs what may throw, and returns its message, or null.
template <typename Work>
const char* guarded(Work work) {
  static thread_local Error last;
  try {
    work();
    return nullptr;
  } catch (const Error& error) {
    last = error;
  } catch (const std::bad_alloc&) {
    std::snprintf(last.message, sizeof last.message, "not enough memory: ffconv's CPU kernels could not allocate theirs");
  } catch (const std::exception& error) {
    std::snprintf(last.message, sizeof last.message, "%s", error.what());
  }
  return last.message;
}

constexpr int64_t LARGEST_SIZE = int64_t(1) << 31;

// A tensor of four dimensions, or none.
struct TensorArgument {
  float* values;
  int64_t sizes[4], strides[4];

  bool has_sizes(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return sizes[0] == a && sizes[1] == b && sizes[2] == c && sizes[3] == d;
  }

  // As a map (N, C, H, W). The strides of axes of size 1 are arbitrary.
  Map<float> map() const {
    Map<float> map{values, strides[0], strides[1], strides[2], strides[3]};
    if (sizes[1] == 1) map.channel = 1;
    if (sizes[3] == 1) map.pixel = sizes[2] == 1 ? sizes[1] : map.row;
    if (sizes[2] == 1) map.row = sizes[3] * map.pixel;
    return map;
  }
  Filters<float> filters() const { return {values, strides[0], strides[1], strides[2], strides[3]}; }

  void check_map(const char* name) const {
    check(values, "%s is missing", name);
    for (int64_t size : sizes) check(size > 0 && size < LARGEST_SIZE, "%s has a size of %lld", name, (long long)size);
  }

  // Elements that are written may not share memory.
  void check_result(const char* name) const {
    check_map(name);
    for (int i = 0; i < 4; ++i) check(sizes[i] == 1 || strides[i] != 0, "%s is an expanded tensor", name);
  }
};

// Contiguous tensors of other dimensions.
struct FlatArgument {
  float* values;
  int64_t count;

  void check_count(int64_t expected, const char* name) const {
    check(values && count == expected, "%s has %lld elements, expected %lld", name, (long long)count,
          (long long)expected);
  }
};

inline void check_planes(int64_t H, int64_t W) {
  check(0 < H && H < LARGEST_SIZE && 0 < W && W < LARGEST_SIZE, "planes of %lld x %lld are too small or too large",
        (long long)H, (long long)W);
}

// The layers of a Spectral Transform (conv1, Fourier Unit, Local Fourier Unit), or of a Fourier Unit alone: weight,
// gamma, beta, mean and variance of each.
struct SpectralArguments {
  int64_t layers;
  float* values[15];
  int64_t counts[15];
  FlatArgument conv2;
  int64_t conv2_outputs;
  double eps[3];

  bool is_fourier_unit() const { return !conv2.values; }
  int64_t hidden(int64_t inputs) const { return is_fourier_unit() ? inputs : conv2.count / conv2_outputs; }
  int64_t outputs(int64_t inputs) const { return is_fourier_unit() ? inputs : conv2_outputs; }
  // Which of conv1, Fourier Unit and Local Fourier Unit a layer is.
  int kind(int64_t layer) const { return int(layer) + is_fourier_unit(); }
  FlatArgument tensor(int64_t layer, int number) const {
    return {values[5 * layer + number], counts[5 * layer + number]};
  }

  void check_sizes(int64_t inputs, int64_t H, int64_t W) const {
    check(is_fourier_unit() ? layers == 1 : layers == 2 || layers == 3, "%lld layers", (long long)layers);
    check(is_fourier_unit() || (conv2_outputs > 0 && conv2.count > 0 && conv2.count % conv2_outputs == 0),
          "conv2 has %lld elements for %lld outputs", (long long)conv2.count, (long long)conv2_outputs);
    const int64_t C = hidden(inputs), columns[] = {C, 2 * C, 2 * C}, depths[] = {inputs, 2 * C, 8 * ((C + 3) / 4)};
    static constexpr const char* NAMES[] = {"conv1", "the Fourier Unit", "the Local Fourier Unit"};
    for (int64_t layer = 0; layer < layers; ++layer) {
      const int of = kind(layer);
      tensor(layer, 0).check_count(columns[of] * depths[of], NAMES[of]);
      for (int number = 1; number < 5; ++number) tensor(layer, number).check_count(columns[of], NAMES[of]);
    }
    check_planes(H, W);
    if (layers == 3) check_planes((H + 1) / 2, (W + 1) / 2);
  }
};

struct InferenceArguments {
  enum Mode : int64_t { RUN, COUNT_PACKED, PACK };

  int64_t mode;            // what PACK and COUNT_PACKED do needs no values of maps
  int64_t* packed_bytes;   // the result of COUNT_PACKED
  int64_t convolves, has_relu, transposed;
  int64_t stride[2], padding[2], dilation[2], modes[2];
  FlatArgument bias;
  char* packed;
  int64_t packed_size;
  TensorArgument x, y, residual, l2l, g2l, l2g;
  SpectralArguments spectral;
};

// Stands before packed weights: they are of use for the same sizes only.
struct PackedHeader {
  static constexpr int64_t MAGIC = 0x66666376;
  int64_t magic, H, W, inputs, local_in, outputs, local_out, hidden, layers, bytes;

  bool operator==(const PackedHeader& other) const { return !std::memcmp(this, &other, sizeof *this); }
};
constexpr int64_t HEADER_BYTES = (sizeof(PackedHeader) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;

inline void set_convolutions(const InferenceArguments& of, ConvolutionJob& job) {
  TensorArgument l2l = of.l2l, g2l = of.g2l, l2g = of.l2g;
  if (of.transposed) {
    std::swap(g2l, l2g);
    for (TensorArgument* weight : {&l2l, &g2l, &l2g}) {
      std::swap(weight->sizes[0], weight->sizes[1]);
      std::swap(weight->strides[0], weight->strides[1]);
    }
  }
  const TensorArgument* some = l2l.values ? &l2l : g2l.values ? &g2l : &l2g;
  check(some->values, "no convolution");
  const int64_t kernel[] = {some->sizes[2], some->sizes[3]}, inputs = of.x.sizes[1], outputs = of.y.sizes[1];
  for (int axis = 0; axis < 2; ++axis) {
    check(kernel[axis] > 0, "an empty kernel");
    const auto in_range = [](int64_t value, int64_t least) { return value >= least && value < LARGEST_SIZE; };
    check(in_range(of.stride[axis], 1) && in_range(of.padding[axis], 0) && in_range(of.dilation[axis], 1),
          "stride %lld, padding %lld, dilation %lld", (long long)of.stride[axis], (long long)of.padding[axis],
          (long long)of.dilation[axis]);
    check(of.modes[axis] >= ZEROS && of.modes[axis] <= CIRCULAR, "padding mode %lld", (long long)of.modes[axis]);
    const Axis along{of.x.sizes[2 + axis], of.y.sizes[2 + axis], kernel[axis], of.stride[axis],
                     of.padding[axis], of.dilation[axis], PaddingMode(of.modes[axis])};
    const int64_t reach = (along.outputs - 1) * along.stride + along.dilation * (along.kernel - 1) - along.padding;
    const int64_t beyond = std::max(along.padding, reach - (along.size - 1));
    check(beyond < along.size + (along.mode != REFLECT) || along.mode == ZEROS || along.mode == REPLICATE,
          "padding of %lld is too large for a map of %lld", (long long)beyond, (long long)along.size);
    (axis == 0 ? job.height : job.width) = along;
  }
  // What a missing weight does not say, the other ones and the maps do.
  const int64_t global_of_y = of.spectral.layers ? of.spectral.conv2_outputs : l2g.values ? l2g.sizes[0] : -1;
  job.local_in = l2l.values ? l2l.sizes[1] : l2g.values ? l2g.sizes[1] : inputs - g2l.sizes[1];
  job.local_out = l2l.values   ? l2l.sizes[0]
                  : g2l.values ? g2l.sizes[0]
                               : outputs - global_of_y;
  job.global_in = inputs - job.local_in;
  job.global_out = outputs - job.local_out;
  check(job.local_in >= 0 && job.global_in >= 0 && job.local_out >= 0 && job.global_out >= 0 &&
            (global_of_y < 0 || global_of_y == job.global_out),
        "weights do not fit maps of %lld and %lld channels", (long long)inputs, (long long)outputs);
  const auto check_weight = [&](const TensorArgument& weight, int64_t out, int64_t in, const char* name) {
    check(!weight.values || weight.has_sizes(out, in, kernel[0], kernel[1]),
          "the weight %s is (%lld, %lld, %lld, %lld), expected (%lld, %lld, %lld, %lld)", name,
          (long long)weight.sizes[0], (long long)weight.sizes[1], (long long)weight.sizes[2],
          (long long)weight.sizes[3], (long long)out, (long long)in, (long long)kernel[0], (long long)kernel[1]);
    Filters<float> filters = weight.filters();
    if (!weight.values || !of.transposed) return filters;
    filters.values += (kernel[0] - 1) * filters.row + (kernel[1] - 1) * filters.column;
    filters.row = -filters.row;
    filters.column = -filters.column;
    return filters;
  };
  const auto read_only = [](const Filters<float>& of) {
    return Filters<const float>{of.values, of.output, of.input, of.row, of.column};
  };
  job.l2l = read_only(check_weight(l2l, job.local_out, job.local_in, "l2l"));
  job.g2l = read_only(check_weight(g2l, job.local_out, job.global_in, "g2l"));
  job.l2g = read_only(check_weight(l2g, job.global_out, job.local_in, "l2g"));
  if (of.bias.values) of.bias.check_count(outputs, "bias");
  job.bias = of.bias.values;
  job.has_relu = of.has_relu;
}

inline void infer(const InferenceArguments& of) {
  const SpectralArguments& spectral = of.spectral;
  InferenceJob job{};
  ConvolutionJob convolutions{};
  const bool runs = of.mode == InferenceArguments::RUN;
  if (runs) {
    of.x.check_map("x");
    of.y.check_result("the result");
    if (of.residual.values)
      check(std::equal(of.y.sizes, of.y.sizes + 4, of.residual.sizes), "the residual is not of the result's size");
  }
  for (int64_t size : of.x.sizes) check(size > 0 && size < LARGEST_SIZE, "x has a size of %lld", (long long)size);
  for (int64_t size : of.y.sizes) check(size > 0 && size < LARGEST_SIZE, "y has a size of %lld", (long long)size);
  check(of.x.sizes[0] == of.y.sizes[0], "x has %lld images, y %lld", (long long)of.x.sizes[0],
        (long long)of.y.sizes[0]);
  job.N = of.y.sizes[0];
  job.H = of.y.sizes[2];
  job.W = of.y.sizes[3];
  job.C_in = of.x.sizes[1];
  job.C_out = of.y.sizes[1];
  job.x = of.x.map();
  job.y = of.y.map();
  job.residual = of.residual.map();
  if (of.convolves) {
    set_convolutions(of, convolutions);
    job.convolutions = &convolutions;
    job.C_in = convolutions.global_in;
  } else {
    check(spectral.layers && of.x.sizes[2] == job.H && of.x.sizes[3] == job.W, "x and y differ in size");
    job.C_out = spectral.outputs(job.C_in);
    check(job.C_out <= of.y.sizes[1], "y has %lld channels, expected %lld", (long long)of.y.sizes[1],
          (long long)job.C_out);
    job.y = job.y.from_channel(of.y.sizes[1] - job.C_out);
    if (of.residual.values) job.residual = job.residual.from_channel(of.y.sizes[1] - job.C_out);
  }
  if (spectral.layers) {
    check(job.C_in > 0, "there are no global channels to transform");
    spectral.check_sizes(job.C_in, job.H, job.W);
    check(!of.convolves || !spectral.is_fourier_unit(), "conv2 is missing");
    job.C = spectral.hidden(job.C_in);
    job.conv2 = spectral.conv2.values;
    NormedLayer* const layers[] = {&job.conv1, &job.fu, &job.lfu};
    for (int64_t i = 0; i < spectral.layers; ++i) {
      float* const* values = spectral.values + 5 * i;
      *layers[spectral.kind(i)] = {values[0], values[1], values[2], values[3], values[4], float(spectral.eps[i])};
    }
  }
  PackedHeader header{PackedHeader::MAGIC, job.H, job.W, of.x.sizes[1], convolutions.local_in, job.C_out,
                      convolutions.local_out, job.C, spectral.layers, 0};
  if (of.packed || !runs) {
    check(of.convolves, "only an FFC's weights can stay packed");
    header.bytes = HEADER_BYTES + packed_bytes(job);
  }
  if (of.mode == InferenceArguments::COUNT_PACKED) {
    *of.packed_bytes = header.bytes;
    return;
  }
  if (of.packed) {
    check(runs || of.packed_size >= header.bytes, "the memory for packed weights has %lld bytes, expected %lld",
          (long long)of.packed_size, (long long)header.bytes);
    check(reinterpret_cast<uintptr_t>(of.packed) % ALIGNMENT == 0, "packed weights are not aligned");
    PackedHeader* const place = reinterpret_cast<PackedHeader*>(of.packed);
    if (!runs || (of.packed_size >= header.bytes && *place == header)) {  // weights that were packed for other sizes are packed anew for this call
      job.packed = of.packed + HEADER_BYTES;
      job.is_packed = runs;
    }
    if (!runs) {
      pack_weights(job);
      *place = header;
      return;
    }
  }
  check(runs, "there is no memory for packed weights");
  run_inference(job);
}

struct TrainingArguments {
  int64_t backward, adds;
  TensorArgument x, y, grad_x;
  SpectralArguments spectral;
  int64_t by_batch[3];
  FlatArgument saved[3], temporary[3];  // what norms read, and as much for its gradient
  FlatArgument grads[9];                // of weight, gamma and beta of each layer
  FlatArgument grad_conv2;
};

inline void train(const TrainingArguments& of) {
  const SpectralArguments& spectral = of.spectral;
  of.x.check_map("x");
  of.backward ? of.y.check_map("the gradient") : of.y.check_result("the result");
  const int64_t N = of.x.sizes[0], H = of.x.sizes[2], W = of.x.sizes[3], C_in = of.x.sizes[1];
  spectral.check_sizes(C_in, H, W);
  const int64_t C = spectral.hidden(C_in), C_out = spectral.outputs(C_in);
  check(of.y.has_sizes(N, of.y.sizes[1], H, W) && of.y.sizes[1] >= C_out, "maps differ in size");
  TrainingJob job{of.x.map(), of.y.map().from_channel(of.y.sizes[1] - C_out), N, H, W, C_in, C, C_out,
                  bool(of.adds), {}, {}, {}, spectral.conv2.values, of.grad_conv2.values, of.grad_x.map()};
  const int64_t h = (H + 1) / 2, w = (W + 1) / 2, width = saved_width(C);
  const int64_t saved[] = {N * H * W * width, N * (W / 2 + 1) * H * 2 * width, N * (w / 2 + 1) * h * 2 * width};
  if (of.backward) {
    of.grad_x.check_result("the gradient of x");
    check(of.grad_x.has_sizes(N, C_in, H, W), "the gradient of x is not of its size");
    if (!spectral.is_fourier_unit()) of.grad_conv2.check_count(spectral.conv2.count, "the gradient of conv2");
  }
  TrainedLayer* const layers[] = {&job.conv1, &job.fu, &job.lfu};
  for (int64_t i = 0; i < spectral.layers; ++i) {
    float* const* values = spectral.values + 5 * i;
    of.saved[i].check_count(saved[spectral.kind(i)], "what a norm reads");
    if (of.backward) {
      of.temporary[i].check_count(saved[spectral.kind(i)], "the gradient of what a norm reads");
      for (int number = 0; number < 3; ++number)
        of.grads[3 * i + number].check_count(spectral.tensor(i, number).count, "a gradient");
    }
    *layers[spectral.kind(i)] = {values[0], values[1], values[2], values[3], values[4], of.saved[i].values,
                                 of.temporary[i].values, of.grads[3 * i].values, of.grads[3 * i + 1].values,
                                 of.grads[3 * i + 2].values, of.by_batch[i], float(spectral.eps[i])};
  }
  run_training(job, of.backward);
}

struct TransformArguments {
  int64_t forward;
  TensorArgument map;
  FlatArgument spectrum;
  double inner;
};

inline void transform_map(const TransformArguments& of) {
  of.forward ? of.map.check_map("the map") : of.map.check_result("the map");
  const auto& [N, C, H, W] = of.map.sizes;
  check_planes(H, W);
  check(of.forward || of.map.map().channel == 1, "planes are written channels last");
  of.spectrum.check_count(N * 2 * C * H * (W / 2 + 1), "the spectrum");
  run_transform({of.map.map(), of.spectrum.values, N, C, H, W, float(of.inner)}, of.forward);
}

struct WeightGradientsArguments {
  int64_t padding[2];
  TensorArgument x, grad, l2l, g2l, l2g;  // the gradients of the weights
};

inline void make_weight_gradients(const WeightGradientsArguments& of) {
  of.x.check_map("x");
  of.grad.check_map("the gradient");
  InferenceArguments as_forward{};
  as_forward.x = of.x;
  as_forward.y = of.grad;
  as_forward.l2l = of.l2l;
  as_forward.g2l = of.g2l;
  as_forward.l2g = of.l2g;
  for (int axis = 0; axis < 2; ++axis) {
    as_forward.stride[axis] = as_forward.dilation[axis] = 1;
    as_forward.padding[axis] = of.padding[axis];
  }
  ConvolutionJob convolutions{};
  set_convolutions(as_forward, convolutions);
  const Map<float> x = of.x.map(), grad = of.grad.map();
  check(suits_winograd(convolutions), "the kernel is not 3x3");
  check(x.is_direct(of.x.sizes[3]) && grad.is_direct(of.grad.sizes[3]), "maps must be channels last");
  check(of.x.sizes[0] == of.grad.sizes[0], "maps differ in images");
  for (const TensorArgument* weight : {&of.l2l, &of.g2l, &of.l2g})
    if (weight->values) weight->check_result("the gradient of a weight");
  run_weight_gradients({&convolutions, x, grad, of.x.sizes[0], of.l2l.filters(), of.g2l.filters(), of.l2g.filters()});
}

}  // namespace
