// Gradients of the weights of 3x3 convolutions of stride 1 by tiles, see winograd.hpp: a tile makes
// A^T ((G g G^T) * (B^T d B)) A of pixels d, so that the gradient of g is G^T ((A dY A^T) * (B^T d B)) G. The sum over
// all tiles is taken at the points, where it is one of outer products.

#pragma once

#include "convolution.hpp"
#include "weight_gradient_gemm.hpp"

namespace {

// Gradients are missing where convolutions are.
struct WeightGradientsJob {
  const ConvolutionJob* convolutions;
  Map<const float> x, grad;  // the input, and the gradient of the result, channels last
  int64_t N;
  Filters<float> l2l, g2l, l2g;
};

// What all threads share: a chunk of tiles at all points, and the sums, by points and then by paths; each is added to
// by one thread.
class WeightGradients {
 public:
  WeightGradients(const WeightGradientsJob& job, Arena& arena)
      : job(job),
        of(*job.convolutions),
        grid{of.height.outputs, of.width.outputs},
        x(CHUNK, of.local_in + of.global_in, arena),
        grad(CHUNK, of.local_out + of.global_out, arena),
        sums(arena.take<OuterSum>(POINTS * MOST_PATHS)) {
    for (const Path& path : {Path{job.l2l, 0, of.local_out, 0, of.local_in},
                             Path{job.g2l, 0, of.local_out, of.local_in, of.global_in},
                             Path{job.l2g, of.local_out, of.global_out, 0, of.local_in}})
      if (path.to.values) paths[number_of_paths++] = path;
    for (int64_t number = 0; number < number_of_sums(); ++number) {
      const OuterSum sum(path_of(number).outputs, path_of(number).inputs, arena);
      if (arena.start) new (sums + number) OuterSum(sum);
    }
  }

  OuterCopies copies(Arena& arena) const { return {std::max(of.local_out, of.global_out), arena}; }

  void run(const Team& team, const OuterCopies& copies) const {
    const int64_t tiles = job.N * grid.tiles();
    team.each(number_of_sums(), [&](int64_t number) { sums[number].clear(); });
    for (int64_t first = 0; first < tiles; first += CHUNK) {
      const int64_t count = std::min(CHUNK, tiles - first);
      team.each(count, [&](int64_t tile) { transform_tile(first + tile, tile); });
      team.wait();
      team.each(number_of_sums(), [&](int64_t number) {
        const Path& path = path_of(number);
        const int64_t point = number / number_of_paths;
        sums[number].add(grad.at(point) + path.output, grad.row, x.at(point) + path.input, x.row, count, copies);
      });
      team.wait();
    }
    for (int64_t path = 0; path < number_of_paths; ++path)
      team.each(paths[path].outputs, [&](int64_t output) { write(path, output); });
  }

 private:
  static constexpr int64_t CHUNK = OuterSum::CHUNK, MOST_PATHS = 3;

  // Channels of the result from `output` on, of those of the input from `input` on.
  struct Path {
    Filters<float> to;
    int64_t output, outputs, input, inputs;
  };

  int64_t number_of_sums() const { return POINTS * number_of_paths; }
  const Path& path_of(int64_t number) const { return paths[number % number_of_paths]; }

  void transform_tile(int64_t number, int64_t tile) const {
    using V = Vector<TilePoints::LANES>;
    const int64_t n = number / grid.tiles(), of_image = number % grid.tiles();
    const int64_t top = grid.top(of_image), left = grid.left(of_image);
    const float *read[READ][READ], *made[TILE][TILE];
    window(job.x, of.height, of.width, n, top, left, read);
    window(job.grad, Axis{grid.height}, Axis{grid.width}, n, top, left, made);
    x.transform(tile, read, [](V& d0, V& d1, V& d2, V& d3) { pixels_to_points(d0, d1, d2, d3); });
    grad.transform(tile, made, [](V& y0, V& y1, V& y2, V& y3) { pixel_gradients_to_points(y0, y1, y2, y3); });
  }

  // The weights of one output.
  void write(int64_t number, int64_t output) const {
    constexpr int LANES = OuterSum::LANES, WIDTH = OuterSum::WIDTH;
    using V = Vector<LANES>;
    const Path& path = paths[number];
    for (int64_t input = 0; input < path.inputs; input += LANES) {
      V points[READ][READ], half[TAPS][READ], taps[TAPS][TAPS];
      for (int i = 0; i < POINTS; ++i) {
        const float* from = sums[i * number_of_paths + number].row(input / WIDTH, output);
        points[i / READ][i % READ] = load<LANES>(from + input % WIDTH, LANES);
      }
      for (int j = 0; j < READ; ++j)
        points_to_weights(points[0][j], points[1][j], points[2][j], points[3][j], half[0][j], half[1][j], half[2][j]);
      for (int i = 0; i < TAPS; ++i) {
        V(&line)[TAPS] = taps[i];
        points_to_weights(half[i][0], half[i][1], half[i][2], half[i][3], line[0], line[1], line[2]);
      }
      float* to = path.to.values + output * path.to.output + input * path.to.input;
      const int64_t count = std::min<int64_t>(LANES, path.inputs - input);
      for (int i = 0; i < TAPS; ++i)
        for (int j = 0; j < TAPS; ++j) {
          float* tap = to + i * path.to.row + j * path.to.column;
          if (path.to.input == 1)
            store<LANES>(taps[i][j], tap, count);
          else
            for (int64_t lane = 0; lane < count; ++lane) tap[lane * path.to.input] = taps[i][j][lane];
        }
    }
  }

  const WeightGradientsJob& job;
  const ConvolutionJob& of;
  const TileGrid grid;
  const TilePoints x, grad;
  OuterSum* const sums;
  Path paths[MOST_PATHS];
  int64_t number_of_paths = 0;
};

inline void run_weight_gradients(const WeightGradientsJob& job) {
  const int threads = most_threads();
  Arena shared{nullptr}, of_thread{nullptr};
  WeightGradients(job, shared).copies(of_thread);
  const Workspace workspace(shared.used, of_thread.used, threads);
  shared = workspace.shared();
  const WeightGradients gradients(job, shared);
#pragma omp parallel num_threads(threads)
  {
    const Team all{omp_get_thread_num(), omp_get_num_threads()};
    Arena arena = workspace.of_thread(all.rank);
    gradients.run(all, gradients.copies(arena));
  }
}

}  // namespace
