// Gradients of the weights of 3x3 convolutions of stride 1 by tiles, see winograd.hpp: a tile makes
// A^T ((G g G^T) * (B^T d B)) A of pixels d, so that the gradient of g is G^T ((A dY A^T) * (B^T d B)) G. The sum over
// all tiles is taken at the points, where it is one of outer products.

#pragma once

#include "convolution.hpp"
#include "outer.hpp"

namespace {

// The weights' gradients are written channels last, (output, tap, input); null for a convolution that is missing.
template <typename T>
struct WeightGradientsJob {
  const ConvolutionJob<T>* around;
  Map<const T> x, grad;  // the input, and the gradient of the result
  int64_t N;
  T *l2l, *g2l, *l2g;
};

// What all threads share: a chunk of tiles at all points, and where the sums are, by points and then by paths.
template <typename T>
class WeightGradients {
 public:
  WeightGradients(const WeightGradientsJob<T>& job, Pieces& pieces)
      : job(job),
        of(*job.around),
        grid{of.height.outputs, of.width.outputs},
        x(CHUNK, of.local_in + of.global_in, pieces),
        grad(CHUNK, of.local_out + of.global_out, pieces) {
    for (const Path& path : {Path{job.l2l, 0, of.local_out, 0, of.local_in},
                             Path{job.g2l, 0, of.local_out, of.local_in, of.global_in},
                             Path{job.l2g, of.local_out, of.global_out, 0, of.local_in}})
      if (path.to) paths.push_back(path);
    sums.resize(POINTS * paths.size());
  }

  // Some of the sums are this thread's, in memory of its own.
  std::vector<OuterSum<T>> sums_of(const Team& team, Pieces& pieces) const {
    const OuterCopies<T> copies(std::max(of.local_out, of.global_out), pieces);
    std::vector<OuterSum<T>> own;
    team.each(sums.size(), [&](int64_t number) {
      const Path& path = path_of(number);
      own.emplace_back(path.outputs, path.inputs, copies, pieces);
    });
    return own;
  }

  void run(const Team& team, std::vector<OuterSum<T>>& own) {
    const int64_t tiles = job.N * grid.tiles(), first_own = team.first(sums.size());
    team.each(sums.size(), [&](int64_t number) { sums[number] = &own[number - first_own]; });
    for (int64_t first = 0; first < tiles; first += CHUNK) {
      const int64_t count = std::min(CHUNK, tiles - first);
      team.each(count, [&](int64_t tile) { enter(first + tile, tile); });
      team.wait();
      team.each(sums.size(), [&](int64_t number) {
        const Path& path = path_of(number);
        const int64_t point = number / int64_t(paths.size());
        own[number - first_own].add(grad.at(point) + path.output, grad.row, x.at(point) + path.input, x.row, count);
      });
      team.wait();
    }
    for (size_t path = 0; path < paths.size(); ++path)
      team.each(paths[path].outputs, [&](int64_t output) { leave(path, output); });
  }

 private:
  static constexpr int64_t CHUNK = OuterSum<T>::CHUNK;

  // Channels of the result from `output` on, of those of the input from `input` on.
  struct Path {
    T* to;
    int64_t output, outputs, input, inputs;
  };

  const Path& path_of(int64_t number) const { return paths[number % int64_t(paths.size())]; }

  void enter(int64_t number, int64_t tile) const {
    using V = typename Vector<T, TilePoints<T>::LANES>::type;
    const int64_t n = number / grid.tiles(), of_image = number % grid.tiles();
    const int64_t top = grid.top(of_image), left = grid.left(of_image);
    const T *read[READ][READ], *made[TILE][TILE];
    window(job.x, of.height, of.width, n, top, left, read);
    window(job.grad, Axis{grid.height}, Axis{grid.width}, n, top, left, made);
    x.enter(tile, read, [](V& d0, V& d1, V& d2, V& d3) { pixels_to_points(d0, d1, d2, d3); });
    grad.enter(tile, made, [](V& y0, V& y1, V& y2, V& y3) { pixel_gradients_to_points(y0, y1, y2, y3); });
  }

  // The weights of one output.
  void leave(size_t path, int64_t output) const {
    constexpr int LANES = OuterSum<T>::LANES, WIDTH = OuterSum<T>::WIDTH;
    using V = typename Vector<T, LANES>::type;
    const int64_t inputs = paths[path].inputs;
    T* to = paths[path].to + output * TAPS * TAPS * inputs;
    for (int64_t input = 0; input < inputs; input += LANES) {
      V points[READ][READ], half[TAPS][READ], taps[TAPS][TAPS];
      for (int i = 0; i < POINTS; ++i) {
        const OuterSum<T>& sum = *sums[i * paths.size() + path];
        points[i / READ][i % READ] = load<T, LANES>(sum.row(input / WIDTH, output) + input % WIDTH, LANES);
      }
      for (int j = 0; j < READ; ++j)
        points_to_weights(points[0][j], points[1][j], points[2][j], points[3][j], half[0][j], half[1][j], half[2][j]);
      for (int i = 0; i < TAPS; ++i) {
        V(&line)[TAPS] = taps[i];
        points_to_weights(half[i][0], half[i][1], half[i][2], half[i][3], line[0], line[1], line[2]);
        for (int j = 0; j < TAPS; ++j) store<T, LANES>(line[j], to + (TAPS * i + j) * inputs + input, inputs - input);
      }
    }
  }

  const WeightGradientsJob<T>& job;
  const ConvolutionJob<T>& of;
  const TileGrid grid;
  const TilePoints<T> x, grad;
  std::vector<Path> paths;
  std::vector<const OuterSum<T>*> sums;
};

template <typename T>
void run_weight_gradients(const WeightGradientsJob<T>& job) {
  static thread_local Scratch of_team, of_thread;
  Pieces counted{nullptr};
  WeightGradients<T>(job, counted);
  Pieces shared{of_team.of(counted.used)};
  WeightGradients<T> gradients(job, shared);
#pragma omp parallel
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    Pieces needed{nullptr};
    gradients.sums_of(all, needed);
    Pieces own{of_thread.of(needed.used)};
    std::vector<OuterSum<T>> sums = gradients.sums_of(all, own);
    gradients.run(all, sums);
    all.wait();  // for those who read the sums
    of_thread.shrink();
  }
  of_team.shrink();
}

}  // namespace
