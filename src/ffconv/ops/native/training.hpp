// A Spectral Transform in training, forward and backward. A norm needs all images before it can go on, so that
// each phase passes over them once; within a phase everything of an image stays in the core's cache.
//
// Only what the norms read is kept for the backward pass. Maps and spectra are computed again from it.

#pragma once

#include "trained_images.hpp"

namespace {

// All threads' own parts, and how they become one.
template <typename T, int LANES>
class Members {
 public:
  using Images = TrainedImages<T, LANES>;

  Members() : images(omp_get_max_threads()) {}

  void join(const Team& all, Images* own) { images[all.rank] = own; }

  // The statistics of the batch, in the channels' own order.
  template <typename Order>
  void set_statistics(const Team& all, Moments<T, LANES> Images::*moments, const TrainedLayer<T>& layer,
                      int64_t channels, Order place_of) const {
    if (!layer.by_batch) return;
    Moments<T, LANES> sum = images[0]->*moments;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*moments);
    for (int64_t c = 0; c < channels; ++c) {
      layer.mean[c] = T(sum.mean[place_of(c)]);
      layer.var[c] = T(sum.squares[place_of(c)] / sum.count);
    }
  }

  GradientSums sums(const Team& all, GradientSums Images::*of) const {
    GradientSums sum = images[0]->*of;
    for (int rank = 1; rank < all.size; ++rank) sum.add(images[rank]->*of);
    return sum;
  }

  // A weight's gradient (rows, columns), from rows of `width` values in the order of the planes.
  template <typename Rows, typename Columns>
  void set_gradient(const Team& all, T* Images::*of, T* to, int64_t rows, int64_t columns, int64_t width, Rows row_at,
                    Columns column_at, T scale) const {
    all.each(rows, [&](int64_t row) {
      for (int64_t column = 0; column < columns; ++column) {
        T sum = 0;
        for (int rank = 0; rank < all.size; ++rank) sum += (images[rank]->*of)[row_at(row) * width + column_at(column)];
        to[row * columns + column] = sum * scale;
      }
    });
  }

 private:
  std::vector<Images*> images;
};

// Calls `work(all, network, members, images, over)` in all threads, with everything set up; `over(work)` goes
// over the images.
template <typename T, int LANES, typename Work>
void run_training(const TrainingJob<T>& job, bool backward, Work work) {
  using Network = TrainedNetwork<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  static thread_local Scratch of_team, of_thread;
  Pieces counted{nullptr};
  Maps(Network(job, backward, counted), counted);
  Pieces shared{of_team.of(counted.used)};
  Network network(job, backward, shared);
  const Maps team_maps(network, shared);
  Members<T, LANES> members;
#pragma omp parallel
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    network.pack(all, backward);
    Pieces needed{nullptr};
    TrainedImages<T, LANES>(network, backward, needed), Maps(network, needed);
    Pieces own{of_thread.of(needed.used)};
    TrainedImages<T, LANES> images(network, backward, own);
    const Maps maps(network, own);
    members.join(all, &images);
    const auto over = [&](auto of_image) {
      over_images(job.N, all, maps, team_maps, of_image);
      all.wait();
    };
    work(all, network, members, images, over);
    all.wait();
    of_thread.shrink();
  }
  of_team.shrink();
}

template <typename T, int LANES>
void train_forward(const TrainingJob<T>& job) {
  using Images = TrainedImages<T, LANES>;
  using P = Planes<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  run_training<T, LANES>(job, false, [&](const Team& all, auto& network, auto& members, Images& images, auto over) {
    const auto by_one = [&](auto step) {
      if (all.rank == 0) step();
      all.wait();
    };
    over([&](int64_t n, const Maps&, const Team& team) { images.enter(n, team); });
    by_one([&] {
      if (!network.alone()) members.set_statistics(all, &Images::first_moments, job.first, job.C, network.in_order);
      network.set_first();
    });
    over([&](int64_t n, const Maps& maps, const Team& team) { images.mix(n, maps, team); });
    by_one([&] {
      members.set_statistics(all, &Images::unit_moments, job.unit, 2 * job.C, P::place_of);
      if (network.has_local())
        members.set_statistics(all, &Images::local_moments, job.local, 2 * job.C, P::place_of);
      network.set_units();
    });
    over([&](int64_t n, const Maps& maps, const Team& team) { images.leave(n, maps, team); });
  });
}

template <typename T, int LANES>
void train_backward(const TrainingJob<T>& job) {
  using Images = TrainedImages<T, LANES>;
  using P = Planes<T, LANES>;
  using Maps = TrainedMaps<T, LANES>;
  run_training<T, LANES>(job, true, [&](const Team& all, auto& network, auto& members, Images& images, auto over) {
    const auto by_one = [&](auto step) {
      if (all.rank == 0) step();
      all.wait();
    };
    const auto set_back = [&](const auto& norm, const TrainedLayer<T>& layer, int64_t channels, auto order,
                              GradientSums Images::*sums, int64_t rows) {
      norm.set_back(layer, channels, order, members.sums(all, sums), double(job.N * rows));
    };
    const P &whole = network.whole, &quadrants = network.quadrants;
    by_one([&] {
      network.set_first();
      network.set_units();
    });
    over([&](int64_t n, const Maps& maps, const Team& team) { images.leave_back(n, maps, team); });
    by_one([&] {
      set_back(network.unit_norm, job.unit, 2 * job.C, P::real_at, &Images::unit_sums, whole.Wf * whole.H);
      if (network.has_local())
        set_back(network.local_norm, job.local, 2 * job.C, P::real_at, &Images::local_sums, quadrants.Wf * quadrants.H);
    });
    over([&](int64_t n, const Maps& maps, const Team& team) { images.mix_back(n, maps, team); });
    by_one([&] {
      if (network.alone()) return;
      set_back(network.first_norm, job.first, job.C, network.in_order, &Images::first_sums, network.pixels());
    });
    over([&](int64_t n, const Maps&, const Team& team) { images.enter_back(n, team); });
    members.set_gradient(all, &Images::grad_unit, job.unit.grad_weight, 2 * job.C, 2 * job.C, whole.width, P::place_of,
                         P::place_of, network.back_scale(whole) / 2);
    if (network.has_local())
      members.set_gradient(all, &Images::grad_local, job.local.grad_weight, 2 * job.C, 2 * quadrants.C, quadrants.width,
                           P::place_of, P::place_of, network.back_scale(quadrants) / 2);
    if (network.alone()) return;
    members.set_gradient(all, &Images::grad_first, job.first.grad_weight, job.C, job.C_in, job.C_in, network.in_order,
                         network.in_order, T(1));
    members.set_gradient(all, &Images::grad_last, job.grad_last, job.C_out, job.C, network.channels, network.in_order,
                         network.in_order, T(1));
  });
}

// Values a pixel of what bn1 reads; the units' norms read twice as many a coefficient.
template <typename T, int LANES>
int64_t trained_width(int64_t C) {
  return C > LANES / 2 ? LANES * Planes<T, LANES>::of(C) : LANES / 2;
}

template <typename T, int LANES>
void run_trained(const TrainingJob<T>& job, bool backward) {
  constexpr int FEW = LANES / 2;
  if (job.C > FEW)
    backward ? train_backward<T, LANES>(job) : train_forward<T, LANES>(job);
  else
    backward ? train_backward<T, FEW>(job) : train_forward<T, FEW>(job);
}

}  // namespace
