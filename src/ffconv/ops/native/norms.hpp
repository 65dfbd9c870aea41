// Batch norms in training: statistics over rows, what a norm does, and its backward pass.

#pragma once

#include <cmath>
#include <vector>

#include "planes.hpp"

namespace {

// A 1x1 convolution (columns, depth) and the batch norm after it, and their gradients.
template <typename T>
struct TrainedLayer {
  const T *weight, *gamma, *beta;
  T *mean, *var;      // written by the forward pass if `by_batch`, and read
  T* read;            // what the norm reads, kept for the backward pass
  T* grad;            // as large; the backward pass leaves the gradient of what the norm gives
  T *grad_weight, *grad_gamma, *grad_beta;
  int64_t by_batch;   // the norm goes by the batch's own mean and variance
  T eps;
};

// Sums over rows of `width` values, by a thread; in double precision from chunk to chunk.
template <typename T, int LANES>
struct Moments {
  using V = typename Vector<T, LANES>::type;
  double count = 0;
  std::vector<double> mean, squares;  // of the differences from the mean

  explicit Moments(int64_t width) : mean(width), squares(width) {}

  void add(const T* rows, int64_t number, int64_t width) {
    for (int64_t at = 0; at < width; at += LANES) {
      V sum{}, square{};
      for (int64_t r = 0; r < number; ++r) sum += load<T, LANES>(rows + r * width + at, LANES);
      const V center = sum / T(number);
      for (int64_t r = 0; r < number; ++r) {
        const V difference = load<T, LANES>(rows + r * width + at, LANES) - center;
        square += difference * difference;
      }
      for (int i = 0; i < LANES; ++i) add(at + i, double(number), center[i], square[i]);
    }
    count += double(number);
  }

  void add(const Moments& other) {
    for (size_t i = 0; i < mean.size() && other.count > 0; ++i) add(int64_t(i), other.count, other.mean[i], other.squares[i]);
    count += other.count;
  }

 private:
  void add(int64_t i, double number, double center, double square) {
    const double difference = center - mean[i], all = count + number;
    mean[i] += difference * number / all;
    squares[i] += square + difference * difference * count * number / all;
  }
};

// Sums of gradients, and of gradients times the difference of what the norm read from its mean.
struct GradientSums {
  std::vector<double> grad, product;

  explicit GradientSums(int64_t width) : grad(width), product(width) {}

  void add(const GradientSums& other) {
    for (size_t i = 0; i < grad.size(); ++i) grad[i] += other.grad[i], product[i] += other.product[i];
  }
};

// A norm, in the order of what it reads: relu(scale x + shift). Its backward pass is scale g + slope x + offset.
template <typename T, int LANES>
struct Norm {
  using V = typename Vector<T, LANES>::type;
  int64_t width;
  T *scale, *shift, *mean, *slope, *offset;

  Norm(int64_t width, Pieces& pieces) : width(width) {
    for (T** values : {&scale, &shift, &mean, &slope, &offset}) *values = pieces.take<T>(width);
  }

  V normed(V x, int64_t at) const { return x * load<T, LANES>(scale + at, LANES) + load<T, LANES>(shift + at, LANES); }

  V activated(V x, int64_t at) const {
    const V value = normed(x, at);
    return value < V{} ? V{} : value;  // which keeps NaN, as ReLU does
  }

  V gated(V grad, V x, int64_t at) const { return normed(x, at) <= V{} ? V{} : grad; }

  // Of rows; `to` may be one of the two.
  void activate(const T* x, int64_t rows, T* to) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES)
        store<T, LANES>(activated(load<T, LANES>(x + r * width + at, LANES), at), to + r * width + at, LANES);
  }

  void back(const T* grad, const T* x, int64_t rows, T* to) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES) {
        const V g = load<T, LANES>(grad + r * width + at, LANES), value = load<T, LANES>(x + r * width + at, LANES);
        const V result = g * load<T, LANES>(scale + at, LANES) + value * load<T, LANES>(slope + at, LANES);
        store<T, LANES>(result + load<T, LANES>(offset + at, LANES), to + r * width + at, LANES);
      }
  }

  // Adds what rows of gradients give to a thread's sums.
  void sum(const T* grad, const T* x, int64_t rows, GradientSums& sums) const {
    for (int64_t at = 0; at < width; at += LANES) {
      V all{}, product{};
      const V center = load<T, LANES>(mean + at, LANES);
      for (int64_t r = 0; r < rows; ++r) {
        const V g = load<T, LANES>(grad + r * width + at, LANES);
        all += g;
        product += g * (load<T, LANES>(x + r * width + at, LANES) - center);
      }
      for (int i = 0; i < LANES; ++i) sums.grad[at + i] += all[i], sums.product[at + i] += product[i];
    }
  }

  // `real_at(place)` is the channel that lies there, and `channels` their number.
  template <typename Order>
  void set(const TrainedLayer<T>& layer, int64_t channels, Order real_at) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = real_at(place);
      const bool inside = c < channels;
      mean[place] = inside ? layer.mean[c] : T(0);
      scale[place] = inside ? layer.gamma[c] / std::sqrt(layer.var[c] + layer.eps) : T(0);
      shift[place] = inside ? layer.beta[c] - mean[place] * scale[place] : T(0);
    }
  }

  template <typename Order>
  void set_back(const TrainedLayer<T>& layer, int64_t channels, Order real_at, const GradientSums& sums,
                double count) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = real_at(place);
      slope[place] = offset[place] = 0;
      if (c >= channels) continue;
      const double invstd = 1 / std::sqrt(double(layer.var[c]) + layer.eps);
      layer.grad_beta[c] = T(sums.grad[place]);
      layer.grad_gamma[c] = T(sums.product[place] * invstd);
      if (!layer.by_batch) continue;
      const double factor = double(scale[place]) / count, back = factor * invstd * invstd * sums.product[place];
      slope[place] = T(-back);
      offset[place] = T(back * mean[place] - factor * sums.grad[place]);
    }
  }
};

}  // namespace
