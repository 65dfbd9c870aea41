// Batch norms in training: statistics over rows, what a norm does, and its backward pass.

#pragma once

#include <cmath>

#include "fft_2d.hpp"

namespace {

// A 1x1 convolution (columns, depth) and the batch norm after it, and their gradients.
struct TrainedLayer {
  const float *weight, *gamma, *beta;
  float *mean, *var;      // written by the forward pass if `by_batch`, and read
  float* read;            // what the norm reads, kept for the backward pass
  float* grad;            // as large; the backward pass leaves the gradient of what the norm gives
  float *grad_weight, *grad_gamma, *grad_beta;
  int64_t by_batch;   // the norm goes by the batch's own mean and variance
  float eps;
};

inline double* zeros(int64_t count, Arena& arena) {
  double* values = arena.take<double>(count);
  if (arena.start) std::fill_n(values, count, 0.0);
  return values;
}

// Sums over rows of `width` values, by a thread; in double precision from chunk to chunk.
template <int LANES>
struct Moments {
  using V = Vector<LANES>;
  const int64_t width;
  double count = 0;
  double *mean, *squares;  // of the differences from the mean

  Moments(int64_t width, Arena& arena) : width(width), mean(zeros(width, arena)), squares(zeros(width, arena)) {}

  void add(const float* rows, int64_t number) {
    for (int64_t at = 0; at < width; at += LANES) {
      V sum{}, square{};
      for (int64_t r = 0; r < number; ++r) sum += load<LANES>(rows + r * width + at, LANES);
      const V center = sum / float(number);
      for (int64_t r = 0; r < number; ++r) {
        const V difference = load<LANES>(rows + r * width + at, LANES) - center;
        square += difference * difference;
      }
      add(at, double(number), __builtin_convertvector(center, Doubles), __builtin_convertvector(square, Doubles));
    }
    count += double(number);
  }

  void add(const Moments& other) {
    if (other.count == 0) return;
    for (int64_t at = 0; at < width; at += LANES)
      add(at, other.count, load<LANES>(&other.mean[at], LANES), load<LANES>(&other.squares[at], LANES));
    count += other.count;
  }

 private:
  using Doubles = Vector<LANES, double>;

  void add(int64_t at, double number, Doubles center, Doubles square) {
    const Doubles before = load<LANES>(&mean[at], LANES), difference = center - before;
    const double share = number / (count + number);
    store<LANES>(before + difference * share, &mean[at], LANES);
    square += load<LANES>(&squares[at], LANES) + difference * difference * (count * share);
    store<LANES>(square, &squares[at], LANES);
  }
};

// Sums of gradients, and of gradients times the difference of what the norm read from its mean.
struct GradientSums {
  const int64_t width;
  double *grad, *product;

  GradientSums(int64_t width, Arena& arena) : width(width), grad(zeros(width, arena)), product(zeros(width, arena)) {}

  template <int LANES, typename V>
  void add(int64_t at, V of_grad, V of_product) {
    using Doubles = Vector<LANES, double>;
    const auto onto = [&](double* sum, V value) {
      const Doubles all = load<LANES>(sum, LANES) + __builtin_convertvector(value, Doubles);
      store<LANES>(all, sum, LANES);
    };
    onto(&grad[at], of_grad);
    onto(&product[at], of_product);
  }

  void add(const GradientSums& other) {
    for (int64_t i = 0; i < width; ++i) grad[i] += other.grad[i], product[i] += other.product[i];
  }
};

// A norm, in the order of what it reads: relu(scale x + shift), all of it times a factor. Its backward pass is
// scale g + slope x + offset.
template <int LANES>
struct Norm {
  using V = Vector<LANES>;
  const int64_t width;
  const float factor;
  float *scale, *shift, *mean, *slope, *offset;

  Norm(int64_t width, float factor, Arena& arena) : width(width), factor(factor) {
    for (float** values : {&scale, &shift, &mean, &slope, &offset}) *values = arena.take(width);
  }

  V normed(V x, int64_t at) const { return x * load<LANES>(scale + at, LANES) + load<LANES>(shift + at, LANES); }

  V activated(V x, int64_t at) const { return relu(normed(x, at)); }

  V gated(V grad, V x, int64_t at) const { return normed(x, at) <= V{} ? V{} : grad; }

  // Of rows, to rows so far apart.
  void activate(const float* x, int64_t rows, float* to, int64_t step) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES)
        store<LANES>(activated(load<LANES>(x + r * width + at, LANES), at), to + r * step + at, LANES);
  }

  void back(const float* grad, const float* x, int64_t rows, float* to, int64_t step) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES) {
        const V g = load<LANES>(grad + r * width + at, LANES), value = load<LANES>(x + r * width + at, LANES);
        const V result = g * load<LANES>(scale + at, LANES) + value * load<LANES>(slope + at, LANES);
        store<LANES>(result + load<LANES>(offset + at, LANES), to + r * step + at, LANES);
      }
  }

  // Gates the gradients of what rows gave, times a factor, and adds what they give to a thread's sums.
  void gate(float* grad, const float* x, int64_t rows, float factor, GradientSums& sums) const {
    for (int64_t at = 0; at < width; at += LANES) {
      V all{}, product{};
      const V center = load<LANES>(mean + at, LANES);
      for (int64_t r = 0; r < rows; ++r) {
        float* const place = grad + r * width + at;
        const V value = load<LANES>(x + r * width + at, LANES);
        const V g = gated(load<LANES>(place, LANES) * factor, value, at);
        store<LANES>(g, place, LANES);
        all += g;
        product += g * (value - center);
      }
      sums.add<LANES>(at, all, product);
    }
  }

  // `Order` says which of so many channels lies where.
  template <typename Order>
  void set(const TrainedLayer& layer, int64_t channels) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = Order::channel_at(place);
      const bool inside = c < channels;
      mean[place] = inside ? layer.mean[c] : float(0);
      scale[place] = inside ? factor * layer.gamma[c] / std::sqrt(layer.var[c] + layer.eps) : float(0);
      shift[place] = inside ? factor * layer.beta[c] - mean[place] * scale[place] : float(0);
    }
  }

  template <typename Order>
  void set_back(const TrainedLayer& layer, int64_t channels, const GradientSums& sums, double count) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = Order::channel_at(place);
      slope[place] = offset[place] = 0;
      if (c >= channels) continue;
      const double invstd = 1 / std::sqrt(double(layer.var[c]) + layer.eps);
      layer.grad_beta[c] = float(factor * sums.grad[place]);
      layer.grad_gamma[c] = float(factor * sums.product[place] * invstd);
      if (!layer.by_batch) continue;
      const double share = double(scale[place]) / count, back = share * invstd * invstd * sums.product[place];
      slope[place] = float(-back);
      offset[place] = float(back * mean[place] - share * sums.grad[place]);
    }
  }
};

}  // namespace
