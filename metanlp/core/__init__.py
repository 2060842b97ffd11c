"""What every other room needs: types, weights, errors, settings, storage, the Hub's client, intervals."""
