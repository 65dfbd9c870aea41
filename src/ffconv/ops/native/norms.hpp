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
      add(at, double(number), __builtin_convertvector(center, Doubles), __builtin_convertvector(square, Doubles));
    }
    count += double(number);
  }

  void add(const Moments& other) {
    if (other.count == 0) return;
    for (size_t at = 0; at < mean.size(); at += LANES)
      add(at, other.count, load<double, LANES>(&other.mean[at], LANES), load<double, LANES>(&other.squares[at], LANES));
    count += other.count;
  }

 private:
  using Doubles = typename Vector<double, LANES>::type;

  void add(int64_t at, double number, Doubles center, Doubles square) {
    const Doubles before = load<double, LANES>(&mean[at], LANES), difference = center - before;
    const double share = number / (count + number);
    store<double, LANES>(before + difference * share, &mean[at], LANES);
    square += load<double, LANES>(&squares[at], LANES) + difference * difference * (count * share);
    store<double, LANES>(square, &squares[at], LANES);
  }
};

// Sums of gradients, and of gradients times the difference of what the norm read from its mean.
struct GradientSums {
  std::vector<double> grad, product;

  explicit GradientSums(int64_t width) : grad(width), product(width) {}

  template <typename T, int LANES, typename V>
  void add(int64_t at, V of_grad, V of_product) {
    using Doubles = typename Vector<double, LANES>::type;
    const auto onto = [&](double* sum, V value) {
      const Doubles all = load<double, LANES>(sum, LANES) + __builtin_convertvector(value, Doubles);
      store<double, LANES>(all, sum, LANES);
    };
    onto(&grad[at], of_grad);
    onto(&product[at], of_product);
  }

  void add(const GradientSums& other) {
    for (size_t i = 0; i < grad.size(); ++i) grad[i] += other.grad[i], product[i] += other.product[i];
  }
};

// A norm, in the order of what it reads: relu(scale x + shift), all of it times a factor. Its backward pass is
// scale g + slope x + offset.
template <typename T, int LANES>
struct Norm {
  using V = typename Vector<T, LANES>::type;
  const int64_t width;
  const T factor;
  T *scale, *shift, *mean, *slope, *offset;

  Norm(int64_t width, T factor, Pieces& pieces) : width(width), factor(factor) {
    for (T** values : {&scale, &shift, &mean, &slope, &offset}) *values = pieces.take<T>(width);
  }

  V normed(V x, int64_t at) const { return x * load<T, LANES>(scale + at, LANES) + load<T, LANES>(shift + at, LANES); }

  V activated(V x, int64_t at) const { return rectified(normed(x, at)); }

  V gated(V grad, V x, int64_t at) const { return normed(x, at) <= V{} ? V{} : grad; }

  // Of rows, to rows so far apart.
  void activate(const T* x, int64_t rows, T* to, int64_t step) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES)
        store<T, LANES>(activated(load<T, LANES>(x + r * width + at, LANES), at), to + r * step + at, LANES);
  }

  void back(const T* grad, const T* x, int64_t rows, T* to, int64_t step) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t at = 0; at < width; at += LANES) {
        const V g = load<T, LANES>(grad + r * width + at, LANES), value = load<T, LANES>(x + r * width + at, LANES);
        const V result = g * load<T, LANES>(scale + at, LANES) + value * load<T, LANES>(slope + at, LANES);
        store<T, LANES>(result + load<T, LANES>(offset + at, LANES), to + r * step + at, LANES);
      }
  }

  // Gates the gradients of what rows gave, times a factor, and adds what they give to a thread's sums.
  void gate(T* grad, const T* x, int64_t rows, T factor, GradientSums& sums) const {
    for (int64_t at = 0; at < width; at += LANES) {
      V all{}, product{};
      const V center = load<T, LANES>(mean + at, LANES);
      for (int64_t r = 0; r < rows; ++r) {
        T* const place = grad + r * width + at;
        const V value = load<T, LANES>(x + r * width + at, LANES);
        const V g = gated(load<T, LANES>(place, LANES) * factor, value, at);
        store<T, LANES>(g, place, LANES);
        all += g;
        product += g * (value - center);
      }
      sums.add<T, LANES>(at, all, product);
    }
  }

  // `Order` says which of so many channels lies where.
  template <typename Order>
  void set(const TrainedLayer<T>& layer, int64_t channels) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = Order::channel_at(place);
      const bool inside = c < channels;
      mean[place] = inside ? layer.mean[c] : T(0);
      scale[place] = inside ? factor * layer.gamma[c] / std::sqrt(layer.var[c] + layer.eps) : T(0);
      shift[place] = inside ? factor * layer.beta[c] - mean[place] * scale[place] : T(0);
    }
  }

  template <typename Order>
  void set_back(const TrainedLayer<T>& layer, int64_t channels, const GradientSums& sums, double count) const {
    for (int64_t place = 0; place < width; ++place) {
      const int64_t c = Order::channel_at(place);
      slope[place] = offset[place] = 0;
      if (c >= channels) continue;
      const double invstd = 1 / std::sqrt(double(layer.var[c]) + layer.eps);
      layer.grad_beta[c] = T(factor * sums.grad[place]);
      layer.grad_gamma[c] = T(factor * sums.product[place] * invstd);
      if (!layer.by_batch) continue;
      const double share = double(scale[place]) / count, back = share * invstd * invstd * sums.product[place];
      slope[place] = T(-back);
      offset[place] = T(back * mean[place] - share * sums.grad[place]);
    }
  }
};

}  // namespace
