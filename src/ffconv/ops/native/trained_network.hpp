// What all threads share of a Spectral Transform in training, and the planes of one image.

#pragma once

#include "norms.hpp"
#include "products.hpp"

namespace {

// y = conv2(h + fu(h) + lfu(h)) with h = relu(bn1(conv1(x))), as the caller fills it in; without first.weight
// y = fu(x), of as many channels.
template <typename T>
struct TrainingJob {
  const T* x;
  T* y;                       // in the backward pass the gradient that is read
  Layout x_layout, y_layout;  // of maps whose rows follow each other: row = W * pixel
  int64_t N, H, W;
  int64_t C_in, C, C_out;     // channels of x, h and y
  int64_t add;                // to what y holds
  TrainedLayer<T> first, unit, local;  // local.weight null: no Local Fourier Unit
  const T* last;
  T *grad_last, *grad_x;      // of conv2's weight, and of x (N, H, W, C_in)
};

// What all threads share: shapes, weights in the order of the planes with the transforms' scales, and norms.
template <typename T, int LANES>
struct TrainedNetwork {
  using P = Planes<T, LANES>;
  const TrainingJob<T>& job;
  const int64_t cut;  // channels of the map whose quadrants the Local Fourier Unit takes
  const P whole, quadrants;
  const int64_t channels, mixed;  // of h and of a mixed spectrum, filled up to whole blocks
  Norm<T, LANES> first_norm, unit_norm, local_norm;
  Packed<T> first, unit, local, last;

  TrainedNetwork(const TrainingJob<T>& job, bool backward, Pieces& pieces)
      : job(job),
        cut((job.C + 3) / 4),
        whole(job.C, job.C, job.H, job.W),
        quadrants(4 * cut, job.C, (job.H + 1) / 2, (job.W + 1) / 2),
        channels(LANES * P::of(job.C)),
        mixed(2 * channels),
        first_norm(channels, pieces),
        unit_norm(mixed, pieces),
        local_norm(mixed, pieces),
        first(packed(backward, alone() ? 0 : channels, alone() ? 0 : job.C_in, pieces)),
        unit(packed(backward, mixed, 2 * LANES * whole.blocks, pieces)),
        local(packed(backward, has_local() ? mixed : 0, 2 * LANES * quadrants.blocks, pieces)),
        last(packed(backward, alone() ? 0 : job.C_out, alone() ? 0 : channels, pieces)) {}

  bool alone() const { return !job.first.weight; }  // the Fourier Unit
  bool has_local() const { return job.local.weight; }
  int64_t pixels() const { return job.H * job.W; }
  // Values of one image in what a norm reads.
  int64_t unit_image() const { return whole.Wf * whole.H * mixed; }
  int64_t local_image() const { return quadrants.Wf * quadrants.H * mixed; }

  static T back_scale(const P& planes) { return T(1 / std::sqrt(double(planes.H) * planes.W)); }

  // The gradient's product has the weight's columns for its depth.
  static Packed<T> packed(bool backward, int64_t columns, int64_t depth, Pieces& pieces) {
    if (backward) std::swap(columns, depth);
    return Packed<T>(columns, depth, pieces.take<T>(Packed<T>::size(columns, depth)));
  }

  void pack(const Team& team, bool backward) {
    const T there = back_scale(whole) / 2, local_there = back_scale(quadrants) / 2;
    pack(team, backward, first, job.first.weight, job.C, job.C_in, in_order, in_order, T(1));
    pack(team, backward, unit, job.unit.weight, 2 * job.C, 2 * whole.C, P::real_at, P::real_at, there);
    if (has_local())
      pack(team, backward, local, job.local.weight, 2 * job.C, 2 * quadrants.C, P::real_at, P::real_at, local_there);
    pack(team, backward, last, job.last, job.C_out, job.C, in_order, in_order, T(1));
    team.wait();
  }

  template <typename Rows, typename Columns>
  static void pack(const Team& team, bool backward, Packed<T>& to, const T* weight, int64_t rows, int64_t columns,
                   Rows row_at, Columns column_at, T scale) {
    team.each(to.panels(), [&](int64_t panel) {
      to.pack_values(panel, [&](int64_t k, int64_t column) {
        const int64_t row = row_at(backward ? k : column), of = column_at(backward ? column : k);
        return row < rows && of < columns ? weight[row * columns + of] * scale : T(0);
      });
    });
  }

  // The norms from the layers' statistics.
  void set_first() const {
    if (!alone()) first_norm.set(job.first, job.C, in_order);
  }
  void set_units() const {
    unit_norm.set(job.unit, 2 * job.C, P::real_at);
    if (has_local()) local_norm.set(job.local, 2 * job.C, P::real_at);
  }

  static int64_t in_order(int64_t place) { return place; }
};

// The planes of one image, and what the Local Fourier Unit adds, (h, w, channels) of a quadrant.
template <typename T, int LANES>
struct TrainedMaps {
  Planes<T, LANES> whole, quadrants;
  T* tiles;

  TrainedMaps(const TrainedNetwork<T, LANES>& network, Pieces& pieces)
      : whole(network.whole), quadrants(network.quadrants) {
    const bool local = network.has_local();
    whole.values = pieces.take<T>(whole.size());
    quadrants.values = pieces.take<T>(local ? quadrants.size() : 0);
    tiles = pieces.take<T>(local ? quadrants.H * quadrants.W * network.channels : 0);
  }
};

}  // namespace
