// The kernels against sums written out, for processors on which PyTorch does not run (under an emulator):
//
//     aarch64-linux-gnu-g++ -O3 -std=c++17 -fopenmp -static tests/backends/cpu/self_check.cpp -o self_check
//     qemu-aarch64 self_check

#include <cstdio>
#include <random>
#include <vector>

#include "../../../src/ffconv/backends/cpu/library.cpp"

int failures = 0;

void compare(const char* name, const std::vector<float>& ours, const std::vector<double>& exact) {
  double error = 0;
  for (size_t i = 0; i < exact.size(); ++i) error = std::max(error, std::abs(ours[i] - exact[i]));
  std::printf("%s: error %.1e\n", name, error);
  failures += !(error < 2e-5);
}

std::vector<float> random_values(int64_t count) {
  static std::mt19937 generator(0);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

int main() {
  // A contiguous map (N, C, H, W), and its half spectrum (N, H, Wf, C, 2).
  const int64_t N = 2, C = 5, H = 6, W = 7, Wf = W / 2 + 1;
  std::vector<float> x = random_values(N * C * H * W), spectrum(N * H * Wf * C * 2), back(x.size());
  const TensorArgument map{x.data(), {N, C, H, W}, {C * H * W, H * W, W, 1}};
  TransformArguments transform{1, map, {spectrum.data(), int64_t(spectrum.size())}, 1.0};
  if (const char* message = ffconv_transform(&transform)) return std::puts(message), 1;
  std::vector<double> exact(spectrum.size());
  for (int64_t n = 0; n < N; ++n)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t u = 0; u < H; ++u)
        for (int64_t v = 0; v < Wf; ++v)
          for (int64_t h = 0; h < H; ++h)
            for (int64_t w = 0; w < W; ++w) {
              const double angle = -2 * std::acos(-1.0) * (double(u * h) / H + double(v * w) / W);
              const double value = x[((n * C + c) * H + h) * W + w] / std::sqrt(double(H * W));
              double* to = &exact[(((n * H + u) * Wf + v) * C + c) * 2];
              to[0] += value * std::cos(angle);
              to[1] += value * std::sin(angle);
            }
  compare("transform", spectrum, exact);
  transform.forward = 0;
  transform.map = {back.data(), {N, C, H, W}, {C * H * W, 1, W * C, C}};
  if (const char* message = ffconv_transform(&transform)) return std::puts(message), 1;
  std::vector<double> planes(x.size());
  for (int64_t i = 0; i < int64_t(x.size()); ++i)
    planes[(i / (C * H * W) * H * W + i % (H * W)) * C + i / (H * W) % C] = x[i];
  compare("transform back", back, planes);

  // A 3x3 convolution of 9 channels without padding.
  const int64_t O = 9, h_out = H - 2, w_out = W - 2;
  std::vector<float> weight = random_values(O * C * 9), y(N * O * h_out * w_out);
  InferenceArguments convolution{};
  convolution.convolves = 1;
  for (int axis = 0; axis < 2; ++axis) convolution.stride[axis] = convolution.dilation[axis] = 1;
  convolution.x = map;
  convolution.y = {y.data(), {N, O, h_out, w_out}, {O * h_out * w_out, h_out * w_out, w_out, 1}};
  convolution.l2l = {weight.data(), {O, C, 3, 3}, {C * 9, 9, 3, 1}};
  if (const char* message = ffconv_infer(&convolution)) return std::puts(message), 1;
  std::vector<double> sums(y.size());
  for (int64_t i = 0; i < int64_t(y.size()); ++i) {
    const int64_t w = i % w_out, h = i / w_out % h_out, o = i / (w_out * h_out) % O, n = i / (w_out * h_out * O);
    for (int64_t k = 0; k < C * 9; ++k) {
      const int64_t c = k / 9, row = h + k % 9 / 3, column = w + k % 3;
      sums[i] += double(weight[o * C * 9 + k]) * x[((n * C + c) * H + row) * W + column];
    }
  }
  compare("convolution", y, sums);

  convolution.l2l.sizes[1] = C + 1;
  const char* refused = ffconv_infer(&convolution);
  std::printf("refused: %s\n", refused ? refused : "no");
  return failures || !refused;
}
