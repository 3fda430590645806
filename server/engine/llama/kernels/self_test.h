// Whether the products of a kernel are right.
#pragma once

#include <cmath>
#include <cstdint>

namespace {

// Compares results[t][r] with exact products of weights[r][c] and activations[t][c]. Sums of floats in any order
// are far nearer than the tolerance; a wrong quant, scale or sum is not.
inline bool products_are_right(const float * weights, int64_t rows, const float * activations,
                               int64_t tokens, int64_t columns, const float * results) {
    for (int64_t i = 0; i < tokens * rows; i++) {
        double exact = 0, magnitude = 0;
        for (int64_t column = 0; column < columns; column++) {
            const double product = double(weights[i % rows * columns + column]) *
                                   activations[i / rows * columns + column];
            exact += product;
            magnitude += std::fabs(product);
        }
        // A NaN is not right.
        if (!(std::fabs(results[i] - exact) <= 1e-5 * magnitude)) {
            return false;
        }
    }
    return true;
}

// Numbers from -1 to 1 that look random; the same each time.
class Numbers {
  public:
    float next() {
        state = state * 1664525 + 1013904223;  // Numerical Recipes, section 7.1
        return float(int32_t(state)) / 0x80000000u;
    }

  private:
    uint32_t state = 1;
};

}  // namespace
